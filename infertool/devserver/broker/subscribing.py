"""SUBSCRIBE frames become subscriptions."""

from __future__ import annotations

from infertool.devserver.broker import selectors, wire
from infertool.devserver.broker.errors import ProtocolError
from infertool.devserver.broker.selectors import SelectorError
from infertool.devserver.broker.subscriptions import AckMode, Consumer, Subscription

_DEFAULT_PREFETCH = 1000
_MODES = {str(mode): mode for mode in AckMode}
# Asking for these and not getting them would lose messages, so they are refused.
_NOT_SUPPORTED = ("durable-subscriber-name", "durable")
DURABLE = "activemq.subscriptionName"


def to_subscription(
    headers: dict[str, str], consumer: Consumer, serial: int, *, page_size: int | None, version: str
) -> Subscription:
    """Return the subscription that the headers ask for. Raises ProtocolError."""
    if "destination" not in headers:
        raise ProtocolError("Invalid empty or 'null' Destination header")
    if "id" not in headers and version != "1.0":
        raise ProtocolError("SUBSCRIBE received without a subscription id!")
    for name in _NOT_SUPPORTED:
        if name in headers:
            raise ProtocolError(f"durable subscriptions are not asked for with {name}; ActiveMQ has {DURABLE}")
    subscription = Subscription(
        # STOMP 1.0 may leave the id out, and unsubscribes by destination then.
        id=headers.get("id", headers["destination"]),
        consumer=consumer,
        mode=_MODES.get(headers.get("ack", "auto"), AckMode.AUTO),
        prefetch=_prefetch(headers, page_size),
        serial=serial,
        exclusive=headers.get("activemq.exclusive") == "true",
    )
    if "id" in headers:
        subscription.lines = wire.header_lines({"subscription": headers["id"]}, version=version)
    if headers.get("selector"):
        subscription.selector = headers["selector"]
        subscription.matches = _selector(headers["selector"])
    return subscription


def _prefetch(headers: dict[str, str], page_size: int | None) -> int:
    try:
        asked = int(headers.get("activemq.prefetchSize", _DEFAULT_PREFETCH))
    except ValueError:
        asked = _DEFAULT_PREFETCH
    return asked if page_size is None else min(asked, page_size)


def _selector(text: str) -> selectors.Selector:
    try:
        return selectors.compile_selector(text)
    except SelectorError as error:
        raise ProtocolError(f"invalid or unsupported selector: {error}") from None
