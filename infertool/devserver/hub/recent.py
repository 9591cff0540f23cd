"""What was broadcast last on public topics, for a viewer that comes back and asks for what it missed.

A real Phoenix does not remember. The viewer says in its join which event it saw last, `{"after": event_id}`; the reply
says how many follow, and whether they are all: `{"missed": 3, "complete": true}`. For vsn 2.0.0 only.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_PUBLIC = "public:"
_MOST = 1_000
_MOST_BYTES = 8_388_608


@dataclass(slots=True)
class _Topic:
    kept: deque[tuple[object, bytes]] = field(default_factory=deque)
    size: int = 0

    def add(self, event_id: object, packet: bytes) -> None:
        self.kept.append((event_id, packet))
        self.size += len(packet)
        while len(self.kept) > _MOST or self.size > _MOST_BYTES:
            self.size -= len(self.kept.popleft()[1])


class Recent:
    """The last thousand broadcasts of each public topic, or 8 MiB of them."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}

    @staticmethod
    def keeps(topic: str) -> bool:
        """Return True if what is broadcast on `topic` is remembered."""
        return topic.startswith(_PUBLIC)

    def note(self, topic: str, payload: object, packet: bytes) -> None:
        """Remember a broadcast."""
        if topic not in self._topics:
            self._topics[topic] = _Topic()
        self._topics[topic].add(_last_id(payload), packet)

    def after(self, topic: str, event_id: object) -> tuple[list[bytes], bool]:
        """Return the packets behind that of the event; all there are, and False, if it is not known (any more)."""
        kept = list(self._topics[topic].kept) if topic in self._topics else []
        for place in range(len(kept) - 1, -1, -1):
            if kept[place][0] == event_id:
                return [packet for _, packet in kept[place + 1 :]], True
        return [packet for _, packet in kept], False


def _last_id(payload: object) -> object:
    """Return the event_id of a broadcast, or of the last result of a batch."""
    if not isinstance(payload, dict):
        return None
    results = payload.get("results")
    last = results[-1] if isinstance(results, list) and results else payload
    return last.get("event_id") if isinstance(last, dict) else None
