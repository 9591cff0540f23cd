"""A queue of events, and how many of them a worker takes at a time. Pure: no thread, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from infertool.consumer.event import Event
from infertool.consumer.tuning import BatchLimits

# Events that are tried in one call; one event, except in batches.
Group = list[Event]

# A worker takes at least as many events as the model needs this time for: to wake a worker for each event costs more
# than a fast model. Seconds.
CHUNK_S = 0.002
LARGEST_CHUNK = 64
# It takes no more events than the model needs this time for, even when its share of the backlog is larger. Seconds.
LONGEST_CHUNK_S = 0.01
# Weight of the latest measurement in the mean time of a call.
_LATEST = 0.2
# Shortest mean time that is believed: clocks have limits. Seconds.
_SHORTEST_S = 1e-6


class Backlog:
    """Events in the order in which they are tried, taken in chunks of single ones or in batches. Not thread-safe."""

    def __init__(self, concurrency: int, batches: BatchLimits | None) -> None:
        self._concurrency = concurrency
        self._batches = batches
        self._events: deque[Event] = deque()
        # The number of events at the front that were taken before and came back: they wait for no batch to fill.
        self._returned = 0
        self.mean_s = 1.0

    def __len__(self) -> int:
        """Return how many events wait."""
        return len(self._events)

    def add(self, events: Iterable[Event]) -> None:
        """Queue events behind the others."""
        self._events.extend(events)

    def add_first(self, events: Iterable[Event]) -> None:
        """Queue events that were taken and not tried, before the others and in their order."""
        returned = list(events)
        self._events.extendleft(reversed(returned))
        self._returned += len(returned)

    def clear(self) -> None:
        """Drop all."""
        self._events.clear()
        self._returned = 0

    def measured(self, count: int, spent_s: float) -> None:
        """Learn that the model was busy with `count` events for `spent_s`."""
        self.mean_s += _LATEST * (spent_s / count - self.mean_s)

    def share(self) -> int:
        """Return the number of events that one worker takes."""
        return self._batches.size if self._batches else self._chunk()

    def chunk(self) -> list[Group]:
        """Remove and return the events of one worker, each a group of its own."""
        return [[self._events.popleft()] for _ in range(min(self._chunk(), len(self._events)))]

    def batch(self, size: int) -> Group:
        """Remove and return up to `size` events for one call. An event marked `alone` is the only one in its batch."""
        group = [self._events.popleft()]
        while self._events and len(group) < size and not (group[0].alone or self._events[0].alone):
            group.append(self._events.popleft())
        self._returned = max(0, self._returned - len(group))
        return group

    def fills(self, size: int) -> bool:
        """Return True if the next batch of up to `size` events is full, cannot grow, or has waited before."""
        # Events behind one marked `alone` belong to a later batch.
        return len(self._events) >= size or self._returned > 0 or self._events[0].alone or self._events[-1].alone

    def oldest_at(self) -> float:
        """Return when the first event was delivered (monotonic)."""
        return self._events[0].delivered_at

    def _chunk(self) -> int:
        mean_s = max(self.mean_s, _SHORTEST_S)
        if mean_s > CHUNK_S:
            return 1
        share = min(-(-len(self._events) // self._concurrency), int(LONGEST_CHUNK_S / mean_s))
        return max(share, min(LARGEST_CHUNK, int(CHUNK_S / mean_s)))
