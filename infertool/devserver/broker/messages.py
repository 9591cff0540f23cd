"""A message as the broker keeps it, and how it is written to a subscriber."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infertool.brokers.stomp.frames import encode

if TYPE_CHECKING:
    from infertool.devserver.broker.queues import Queue

_COMMAND = b"MESSAGE\n"
# STOMP 1.0 has no escapes: what would end a line or a name is blanked, so that the frame stays whole.
_BLANKED = str.maketrans("\n\r", "  ")


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
    _head: bytes = field(default=b"", repr=False)
    _head_version: str = field(default="", repr=False)

    def head(self, version: str) -> bytes:
        """Return the header lines and the empty line after them, as written in this STOMP version."""
        if self._head_version != version:
            headers = self.headers if version != "1.0" else _without_line_breaks(self.headers)
            self._head = encode("MESSAGE", headers, version=version)[len(_COMMAND) : -1]
            self._head_version = version
        return self._head

    def frame(self, version: str, delivery: bytes) -> bytes:
        """Return the MESSAGE frame; `delivery` holds the header lines of this delivery (subscription, ack)."""
        redelivered = b"redelivered:true\n" if self.returns else b""
        return b"MESSAGE\n%b%b%b%b\0" % (delivery, redelivered, self.head(version), self.body)

    def expired(self, now_ms: int) -> bool:
        """Tell whether its time is over."""
        return 0 < self.expires <= now_ms

    def twin(self) -> StoredMessage:
        """Return a copy for another place, with no history."""
        return StoredMessage(
            self.id, self.headers, self.body, self.arrived_ms, self.priority, self.persistent, self.expires
        )


def _without_line_breaks(headers: dict[str, str]) -> dict[str, str]:
    return {key.translate(_BLANKED).replace(":", "_"): value.translate(_BLANKED) for key, value in headers.items()}
