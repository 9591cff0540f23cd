"""Events that are tried with nothing else in progress, so that a death of the process tells of them alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from infertool.consumer.attempt import Event
from infertool.consumer.worker import Caller


class Suspects(Protocol):
    """Knows the events that were in progress when a process died."""

    @property
    def suspected(self) -> Collection[Event]:
        """The suspects that this process has, until they are settled."""

    def begin_alone(self, event: Event) -> None:
        """Note that a suspect is tried with nothing else in progress."""

    def end_alone(self, event: Event) -> None:
        """Note that this try has ended."""


class NoSuspects:
    """See `Suspects`."""

    suspected: Collection[Event] = frozenset()

    def begin_alone(self, event: Event) -> None:
        """See `Suspects`."""

    def end_alone(self, event: Event) -> None:
        """See `Suspects`."""


class Isolation:
    """The suspects that wait for their turn, and the one that is tried. Not thread-safe: the queue's lock guards it."""

    def __init__(self, suspects: Suspects) -> None:
        self._suspects = suspects
        self._waiting: deque[Event] = deque()
        self._tried: dict[Caller, Event] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    @property
    def is_on(self) -> bool:
        """True while a suspect waits or is tried: nothing else may begin."""
        return bool(self._waiting or self._tried)

    def others(self, events: Iterable[Event]) -> Iterable[Event]:
        """Have the suspects among `events` wait; return the other events."""
        suspected = self._suspects.suspected
        if not suspected:
            return events
        events = list(events)
        self._waiting.extend(event for event in events if event in suspected)
        return [event for event in events if event not in suspected]

    def begin(self, worker: Caller) -> Event:
        """Return the next suspect, which `worker` tries now."""
        event = self._tried[worker] = self._waiting.popleft()
        self._suspects.begin_alone(event)
        return event

    def end(self, worker: Caller) -> None:
        """Note that `worker` has ended its try, or was given up."""
        if event := self._tried.pop(worker, None):
            self._suspects.end_alone(event)

    def clear(self) -> None:
        """Drop those that wait."""
        self._waiting.clear()

    def remove(self, is_wanted: Callable[[Event], bool]) -> list[Event]:
        """Remove and return those that wait and for which `is_wanted` is True."""
        removed = [event for event in self._waiting if is_wanted(event)]
        self._waiting = deque(event for event in self._waiting if event not in removed)
        return removed
