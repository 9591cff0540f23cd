"""A message as the broker keeps it, and how it is written to a subscriber."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infertool.devserver.broker import wire
from infertool.devserver.broker.schedule import Schedule

if TYPE_CHECKING:
    from infertool.devserver.broker.queues import Queue


@dataclass(slots=True, eq=False)
class StoredMessage:
    """One message in one place. `headers` are all that a MESSAGE frame shows of it, whoever receives it.

    `expires` is in milliseconds since the epoch, 0 for never. `returns` counts the deliveries that came back unacked.
    `queue` and `sequence` (its place in the order of arrival) are set by the queue that holds it, `delivery` (its
    place in the order of delivery) by the session that delivers it.
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
    queue: Queue | None = None
    schedule: Schedule | None = None
    _head: bytes = field(default=b"", repr=False)
    _head_version: str = field(default="", repr=False)

    def head(self, version: str) -> bytes:
        """Return the header lines, as written in this STOMP version."""
        if self._head_version != version:
            self._head = wire.header_lines(self.headers, version=version)
            self._head_version = version
        return self._head

    def frame(self, version: str, delivery: bytes) -> bytes:
        """Return the MESSAGE frame; `delivery` holds the header lines of this delivery (subscription, ack)."""
        redelivered = b"redelivered:true\n" if self.returns else b""
        return b"MESSAGE\n%b%b%b\n%b\0" % (delivery, redelivered, self.head(version), self.body)

    def expired(self, now_ms: int) -> bool:
        """Tell whether its time is over."""
        return 0 < self.expires <= now_ms

    def twin(self) -> StoredMessage:
        """Return a copy for another place, with no history."""
        return StoredMessage(
            self.id, self.headers, self.body, self.arrived_ms, self.priority, self.persistent, self.expires
        )

    def copies(self, count: int) -> list[StoredMessage]:
        """Return `count` messages for as many places, this one among them, each with headers of its own."""
        others = [self.twin() for _ in range(count - 1)]
        for other in others:
            other.headers = self.headers.copy()
        return [self, *others]
