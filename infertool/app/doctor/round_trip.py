"""A message through a queue of the connection's own, which ends with it."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Final

from infertool.app.doctor.clock import Skew
from infertool.app.doctor.result import Finding, fail, ok, warn
from infertool.app.doctor.words import duration
from infertool.brokers.port import Broker
from infertool.errors import ConnectionLostError
from infertool.message import Message, Outgoing

_HINT: Final = "look at the load and the log of the broker, and at the network to it"
_SLOW_S: Final = 1.0
_GRACE_S: Final = 1.0
_MILLISECOND_S: Final = 0.001


def round_trip(broker: Broker, timeout_s: float) -> tuple[Finding, Skew | None]:
    """Send a message to a temporary queue, and wait for it. Return also how far the time on it is from ours."""
    body = secrets.token_hex(8).encode()
    changed = threading.Condition()
    came: list[tuple[float, float, Message]] = []
    answers: list[tuple[float, Exception | None]] = []

    def take(messages: list[Message]) -> None:
        with changed:
            came.extend((time.monotonic(), time.time(), message) for message in messages if message.body == body)
            changed.notify_all()

    def sent(error: Exception | None) -> None:
        with changed:
            answers.append((time.monotonic(), error))
            changed.notify_all()

    replies = broker.open_replies(take)
    try:
        address = replies.address
        if address is None:
            raise ConnectionLostError(f"there is no connection to {broker.address}", address=broker.address)
        began, sent_at = time.monotonic(), time.time()
        broker.send(Outgoing(address, body), sent, declare=False)
        with changed:
            # An adapter that gives up tells why, a moment later.
            changed.wait_for(lambda: (came and answers) or any(error for _, error in answers), timeout_s + _GRACE_S)
    finally:
        replies.close()
    if error := next((error for _, error in answers if error), None):
        if isinstance(error, ConnectionLostError):
            raise error
        return fail(f"the broker refused the message: {error}", "allow the user to use temporary queues"), None
    if not came or not answers:
        what = "the message did not come back" if answers else "the broker did not confirm the message"
        return fail(f"{what} within {timeout_s:g} s", _HINT), None
    arrived, arrived_at, message = came[0]
    took_s, confirmed_s = arrived - began, answers[0][0] - began
    value = f"{duration(took_s)}, confirmed after {duration(confirmed_s)}"
    at_ms = message.properties.timestamp_ms
    finding = warn(value, _HINT, took_s, "seconds") if took_s > _SLOW_S else ok(value, took_s, "seconds")
    if at_ms is None:
        return finding, None
    # Written somewhere between the two, in whole milliseconds.
    error_s = (arrived_at - sent_at) / 2 + _MILLISECOND_S
    return finding, Skew("the broker", at_ms / 1000 - (sent_at + arrived_at) / 2, error_s)
