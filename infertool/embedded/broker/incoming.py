"""Converts SEND frames to stored messages, and SUBSCRIBE headers to subscriptions."""

from __future__ import annotations

from infertool.brokers.stomp.frames import Frame
from infertool.embedded.broker import messages, selectors
from infertool.embedded.broker.destinations import ProtocolError
from infertool.embedded.broker.messages import StoredMessage, take_schedule
from infertool.embedded.broker.queues import AckMode, Consumer, Subscription
from infertool.embedded.broker.selectors import SelectorError

_DEFAULT_PRIORITY = 4
_HIGHEST_PRIORITY = 9
# Headers that a MESSAGE does not copy: the broker sets them, or (JMSX...) does not show them over STOMP.
_NOT_COPIED = (
    "destination", "receipt", "transaction", "content-length", "message-id", "subscription", "redelivered",
    "persistent", "JMSXGroupID", "JMSXGroupSeq", "JMSXUserID",
)  # fmt: skip


def to_message(frame: Frame, message_id: str, now_ms: int) -> StoredMessage:
    """Return the message of a SEND. Its `destination` header is set when it is routed.

    Raises a fatal `ProtocolError`, as ActiveMQ does, if a header that must be a number is not one.
    """
    sent = frame.headers
    headers = sent.copy()
    for name in _NOT_COPIED:
        headers.pop(name, None)
    priority = min(max(_number(sent, "priority", _DEFAULT_PRIORITY), 0), _HIGHEST_PRIORITY)
    expires = _number(sent, "expires", 0)
    headers["message-id"] = message_id
    headers["priority"] = str(priority)
    headers["expires"] = str(expires)
    headers["timestamp"] = str(_number(sent, "timestamp", now_ms))
    # A BytesMessage shows its length, a TextMessage does not.
    if "content-length" in sent or sent.get("amq-msg-type") == "bytes":
        headers["content-length"] = str(len(frame.body))
    persistent = sent.get("persistent") == "true"
    if persistent:
        headers["persistent"] = "true"
    schedule = take_schedule(headers)
    return StoredMessage(message_id, headers, frame.body, now_ms, priority, persistent, expires, schedule=schedule)


def _number(headers: dict[str, str], name: str, default: int) -> int:
    text = headers.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise ProtocolError(f"{name} is no number: {text[:40]!r}", fatal=True) from None


_DEFAULT_PREFETCH = 1000
_MODES = {str(mode): mode for mode in AckMode}
# Refused: to ignore these headers would lose messages.
_NOT_SUPPORTED = ("durable-subscriber-name", "durable")
DURABLE = "activemq.subscriptionName"


def to_subscription(
    headers: dict[str, str], consumer: Consumer, serial: int, *, page_size: int | None, version: str
) -> Subscription:
    """Return the subscription for the headers of a SUBSCRIBE. Raises `ProtocolError`."""
    if "destination" not in headers:
        raise ProtocolError("Invalid empty or 'null' Destination header")
    if "id" not in headers and version != "1.0":
        raise ProtocolError("SUBSCRIBE received without a subscription id!")
    for name in _NOT_SUPPORTED:
        if name in headers:
            raise ProtocolError(f"durable subscriptions are not asked for with {name}; ActiveMQ has {DURABLE}")
    subscription = Subscription(
        # In STOMP 1.0 the id is optional; UNSUBSCRIBE then uses the destination.
        id=headers.get("id", headers["destination"]),
        consumer=consumer,
        mode=_MODES.get(headers.get("ack", "auto"), AckMode.AUTO),
        prefetch=_prefetch(headers, page_size),
        serial=serial,
        exclusive=headers.get("activemq.exclusive") == "true",
    )
    if "id" in headers:
        subscription.lines = messages.header_lines({"subscription": headers["id"]}, version=version)
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
