"""One run at a time on a queue, wherever the operators sit: the broker decides.

A broker gives all messages of a queue to the first *exclusive* consumer, and to the next when that one ends, however it
ends. So each run subscribes to the queue's lock queue and sends itself a message: the run that gets its own has the
lock. RabbitMQ refuses the second subscription at once. Artemis has no such consumers, but counts all: a run that is not
alone there gives up.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from infertool.brokers.port import Broker, Browsing, Subscription
from infertool.deadletters.replay import staging
from infertool.errors import InfertoolError, OccupiedError
from infertool.message import Message, Outgoing, Properties

# A note of our own that did not come for so long is held back by another run, or the broker is slow.
_WAIT_S = 3.0
_LONGEST_WAIT_S = 30.0
_POLL_S = 0.1
_LOOK_S = 5.0


class BusyError(InfertoolError):
    """Another run works on the queue. `holder` says who, as far as the broker tells."""

    def __init__(self, queue: str, holder: str) -> None:
        super().__init__(
            f"another run works on {queue}: {holder}", advice="wait for it, or use --force if it is not so"
        )
        self.queue = queue
        self.holder = holder


@contextmanager
def locked(broker: Broker, queue: str, who: str) -> Iterator[float]:
    """Hold the lock of `queue` while the block runs. Raises `BusyError`, `ServerError`.

    Yields how many seconds the broker's clock is ahead of ours, 0 when that is less than the exchange took.
    """
    place, token = staging.lock(queue), secrets.token_hex(8)
    try:
        subscription = broker.subscribe(place, window=100, exclusive=broker.capabilities.exclusive)
    except OccupiedError:
        raise BusyError(queue, "unknown") from None
    if not broker.capabilities.exclusive:
        _check_alone(broker, queue, place)
    note = Outgoing(place, who.encode(), headers={"lock_token": token}, properties=Properties(persistent=False))
    sent_at = time.time()
    broker.send(note, lambda _answer: None)
    mine = _await_own(subscription, token, _WAIT_S)
    if mine is None and _is_alone(broker, place):
        mine = _await_own(subscription, token, _LONGEST_WAIT_S)
    if mine is None:
        raise BusyError(queue, _holder(broker, place, token))
    try:
        yield _ahead(mine, sent_at, time.time())
    finally:
        subscription.ack([mine])


def _check_alone(broker: Broker, queue: str, place: str) -> None:
    """Raise `BusyError` if others subscribe to the lock queue, too. Two that begin at once may both be told so."""
    depth = broker.measure(place, _LOOK_S)
    if depth is None or depth.consumers is None:
        raise BusyError(queue, "the broker does not tell")
    if depth.consumers > 1:
        raise BusyError(queue, "unknown")


def _ahead(note: Message, sent_at: float, received_at: float) -> float:
    """Return how far the broker's clock is ahead: it stamps what a client sends."""
    stamp = note.properties.timestamp_ms
    if stamp is None:
        return 0.0
    at = stamp / 1000
    return max(at - received_at, 0.0) + min(at - sent_at, 0.0)


def _is_alone(broker: Broker, place: str) -> bool:
    """Return True if the broker tells of no other consumer."""
    depth = broker.measure(place, _LOOK_S)
    return depth is not None and depth.consumers == 1


def _await_own(subscription: Subscription, token: str, patience_s: float) -> Message | None:
    """Wait for our own message. Others' are from runs that ended without a goodbye."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        for message in subscription.receive(1, _POLL_S):
            if message.native.get("lock_token") == token:
                return message
            subscription.ack([message])
    return None


def _holder(broker: Broker, place: str, token: str) -> str:
    if broker.capabilities.browse is Browsing.NONE:
        return "unknown"
    shown = broker.browse(place, limit=10, timeout_s=_LOOK_S).messages
    others = [message for message in shown if message.native.get("lock_token") != token]
    return others[0].body.decode("utf-8", "replace") if others else "unknown"
