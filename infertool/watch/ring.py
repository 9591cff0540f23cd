"""The newest entries, bounded by count and by size."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from infertool.watch.entry import Entry

# Payloads of one ring together, in bytes: with ordinary events the count ends it long before.
MOST_BYTES = 64 * 1024 * 1024


class Ring:
    """Keeps the newest `keep` entries, fewer when their payloads are large; says how many older ones it dropped."""

    def __init__(self, keep: int, most_bytes: int = MOST_BYTES) -> None:
        self.dropped = 0
        self._keep = keep
        self._most_bytes = most_bytes
        self._bytes = 0
        self._entries: deque[Entry] = deque()

    def add(self, entries: Sequence[Entry]) -> None:
        """Take newer entries, oldest first. The newest stays, whatever its size."""
        kept = self._entries
        for entry in entries:
            kept.append(entry)
            self._bytes += len(entry.body)
            while len(kept) > self._keep or (self._bytes > self._most_bytes and len(kept) > 1):
                self._bytes -= len(kept.popleft().body)
                self.dropped += 1

    @property
    def first_number(self) -> int:
        """The number of the oldest entry; 0 when there is none."""
        return self._entries[0].number if self._entries else 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __reversed__(self) -> Iterator[Entry]:
        return reversed(self._entries)
