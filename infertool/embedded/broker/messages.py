"""Stored messages, their encoding for subscribers, and scheduled delivery. No I/O."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

from infertool.brokers.stomp import frames
from infertool.embedded.broker.destinations import Destination, ProtocolError

# STOMP 1.0 and CONNECTED have no escapes: characters that would end a line or a name are replaced.
_BLANKED = str.maketrans("\n\r", "  ")


def encode(command: str, headers: Mapping[str, str], body: bytes = b"", *, version: str) -> bytes:
    """Encode a frame; never fails."""
    if version == "1.0" or command == "CONNECTED":
        headers = {_blanked(key).replace(":", "_"): _blanked(value) for key, value in headers.items()}
    return frames.encode(command, headers, body, version=version)


def header_lines(headers: Mapping[str, str], *, version: str) -> bytes:
    """Return the header lines as UTF-8; bytes that were received as invalid UTF-8 are unchanged."""
    # Called for each delivery: most values are words or numbers without escapes, and there are few keys.
    lines = [
        f"{_key(key, version)}:{value if value.isalnum() else _value(value, version)}\n"
        for key, value in headers.items()
    ]
    return "".join(lines).encode(errors="surrogateescape")


@lru_cache(maxsize=1024)
def _key(key: str, version: str) -> str:
    return _blanked(key).replace(":", "_") if version == "1.0" else frames.escape_value(key, version)


def _value(value: str, version: str) -> str:
    return _blanked(value) if version == "1.0" else frames.escape_value(value, version)


def _blanked(text: str) -> str:
    return text.translate(_BLANKED)


_DELAY, _PERIOD, _REPEAT, _CRON = (f"AMQ_SCHEDULED_{name}" for name in ("DELAY", "PERIOD", "REPEAT", "CRON"))
# Maximum of digits, for a 64-bit number.
_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Schedule:
    """The schedule of a message: delivered after `delay_ms`, then `repeat` more times, every `period_ms`."""

    delay_ms: int
    period_ms: int
    repeat: int


def take_schedule(headers: dict[str, str]) -> Schedule | None:
    """Remove and return the schedule in a SEND's headers; None if there is none (REPEAT alone is no schedule).

    Raises a fatal `ProtocolError` for values at which ActiveMQ closes the connection.
    """
    if _CRON in headers:
        raise ProtocolError(f"{_CRON} is not supported by the embedded broker")
    if _DELAY not in headers and _PERIOD not in headers:
        return None
    delay, period, repeat = (_number(headers.pop(name, "0"), name) for name in (_DELAY, _PERIOD, _REPEAT))
    return Schedule(delay or period, period, repeat if period else 0)


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise ProtocolError(f"{name} is no number from 0: {text[:40]!r}", fatal=True)
    return int(text)


class Holder(Protocol):
    """The queue or mailbox that holds a message."""

    @property
    def waiting(self) -> int:
        """The number of messages that are not delivered."""

    @property
    def subscriptions(self) -> Sized:
        """The subscriptions that take its messages."""

    @property
    def dead_letters(self) -> str:
        """The name of its dead-letter queue; empty if it has none."""

    def dispatch(self, now_ms: int) -> None:
        """Deliver messages."""

    def take_expired(self) -> list[StoredMessage]:
        """Return the messages that expired since the last call."""

    def give_back(self, messages: Iterable[StoredMessage]) -> None:
        """Put unacked messages back."""

    def settle(self, message: StoredMessage, now_ms: int) -> None:
        """Count a delivered message as done."""


@dataclass(slots=True, eq=False)
class StoredMessage:
    """One message in one queue. `headers` are those that every MESSAGE frame of it has.

    `expires` is in milliseconds since the epoch; 0 means never. `returns` counts deliveries that came back unacked. The
    queue that holds it sets `queue` and `sequence` (its position in the order of arrival); the session that delivers it
    sets `delivery` (its position in the order of delivery).
    """

    id: str
    headers: dict[str, str]
    body: bytes
    arrived_ms: int
    priority: int = 4
    persistent: bool = False
    expires: int = 0
    dead_lettered: bool = False
    sequence: int = 0
    delivery: int = 0
    returns: int = 0
    queue: Holder | None = None
    schedule: Schedule | None = None
    _head: bytes = field(default=b"", repr=False)
    _head_version: str = field(default="", repr=False)

    def head(self, version: str) -> bytes:
        """Return the header lines, encoded for the STOMP version."""
        if self._head_version != version:
            self._head = header_lines(self.headers, version=version)
            self._head_version = version
        return self._head

    def frame(self, version: str, delivery: bytes) -> bytes:
        """Return the MESSAGE frame. `delivery` is the header lines of this delivery (subscription, ack)."""
        redelivered = b"redelivered:true\n" if self.returns else b""
        return b"MESSAGE\n%b%b%b\n%b\0" % (delivery, redelivered, self.head(version), self.body)

    def expired(self, now_ms: int) -> bool:
        """Return True if the message has expired."""
        return 0 < self.expires <= now_ms

    def twin(self) -> StoredMessage:
        """Return a copy for another queue, without delivery history."""
        return StoredMessage(
            self.id, self.headers, self.body, self.arrived_ms, self.priority, self.persistent, self.expires
        )

    def copies(self, count: int) -> list[StoredMessage]:
        """Return this message and copies of it, `count` in all, each with its own headers."""
        others = [self.twin() for _ in range(count - 1)]
        for other in others:
            other.headers = self.headers.copy()
        return [self, *others]


@dataclass(order=True, slots=True)
class _Job:
    due_ms: int
    number: int
    sent_ms: int = field(compare=False)
    destination: Destination = field(compare=False)
    message: StoredMessage = field(compare=False)
    schedule: Schedule = field(compare=False)


class Scheduler:
    """Keeps messages for later or repeated delivery.

    As in ActiveMQ 5.17.2 with `schedulerSupport="true"` (measured), each repeated message has an id of its own.
    """

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._jobs: list[_Job] = []
        self._numbers = itertools.count(1)

    @property
    def next_ms(self) -> int | None:
        """The time at which the next message is due, in milliseconds since the epoch; None if there is none."""
        return self._jobs[0].due_ms if self._jobs else None

    def add(self, destination: Destination, message: StoredMessage, schedule: Schedule, now_ms: int) -> None:
        """Add a message."""
        message.headers["scheduledJobId"] = message.id
        due_ms = now_ms + schedule.delay_ms
        heapq.heappush(self._jobs, _Job(due_ms, next(self._numbers), now_ms, destination, message, schedule))

    def take_due(self, now_ms: int) -> list[tuple[Destination, StoredMessage]]:
        """Remove and return the messages that are due, in order."""
        due = []
        while self._jobs and self._jobs[0].due_ms <= now_ms:
            job = heapq.heappop(self._jobs)
            due.append((job.destination, self._occurrence(job)))
            if job.schedule.repeat:
                later = replace(job.schedule, repeat=job.schedule.repeat - 1)
                heapq.heappush(self._jobs, replace(job, due_ms=job.due_ms + later.period_ms, schedule=later))
        return due

    def _occurrence(self, job: _Job) -> StoredMessage:
        _, message = job.message.copies(2)
        if job.schedule.period_ms:
            message.id = message.headers["message-id"] = f"{self._identity}:1:0:0:{next(self._numbers)}"
        if message.expires:
            # The time to live starts at the delivery.
            message.expires += job.due_ms - job.sent_ms
            message.headers["expires"] = str(message.expires)
        message.arrived_ms = job.due_ms
        return message
