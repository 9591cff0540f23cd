"""Several publishers as one: each publication goes to all of them, and is confirmed when all have confirmed it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from infertool.publishers.port import Confirmation, OnSettled, Publication, Publisher, Rejection
from infertool.telemetry.signals import NONE_UNCONFIRMED, Unconfirmed

T = TypeVar("T")


@dataclass(slots=True)
class _State:
    """A publication at its publishers, by their places: `due` have to be given it, `unconfirmed` to confirm it."""

    context: object
    due: set[int]
    unconfirmed: set[int]


class JoinedPublishers(Generic[T]):
    """Publishes to `publishers`; those after the first do not get the events in `first_only`.

    A rejection by one of them is reported at once. When its publication is published again, only that publisher gets
    it. `key` returns what a context is about: a later publication about the same (an alert after a rejected result)
    takes the place of an earlier one, whose confirmations do not count any more.
    """

    def __init__(
        self,
        publishers: Sequence[Publisher[T]],
        key: Callable[[T], Hashable],
        first_only: frozenset[str] = frozenset(),
    ) -> None:
        self._publishers = publishers
        self._key = key
        self._first_only = first_only
        self.name = publishers[-1].name
        self.batch = max(publisher.batch for publisher in publishers)
        self._lock = threading.Lock()
        self._states: dict[Hashable, _State] = {}
        self._on_settled: OnSettled[T] | None = None

    def start(self) -> None:
        """Start all."""
        for publisher in self._publishers:
            publisher.start()

    def report_to(self, on_settled: OnSettled[T]) -> None:
        """Report to `on_settled`, from the threads of all publishers."""
        self._on_settled = on_settled
        for place, publisher in enumerate(self._publishers):
            publisher.report_to(partial(self._take, place))

    def publish(self, publications: Sequence[Publication[T]], *, crashes: int = 0) -> None:
        """Publish to those that have not confirmed yet."""
        due: list[list[Publication[T]]] = [[] for _ in self._publishers]
        with self._lock:
            for publication in publications:
                state = self._state(publication)
                for place in state.due:
                    due[place].append(publication)
                state.due.clear()
        for publisher, group in zip(self._publishers, due, strict=True):
            if group:
                publisher.publish(group, crashes=crashes)

    def widen(self, window: int) -> None:
        """Widen all."""
        for publisher in self._publishers:
            publisher.widen(window)

    def pending(self) -> Unconfirmed:
        """Return the figures of all together."""
        total = NONE_UNCONFIRMED
        for publisher in self._publishers:
            total = total.joined(publisher.pending())
        return total

    def stop(self) -> None:
        """Stop all."""
        for publisher in self._publishers:
            publisher.stop()

    def drain(self, timeout_s: float) -> bool:
        """Wait for all, within one `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        drained = [publisher.drain(max(0.0, deadline - time.monotonic())) for publisher in self._publishers]
        return all(drained)

    def close(self, timeout_s: float) -> None:
        """Close all."""
        for publisher in self._publishers:
            publisher.close(timeout_s)

    def _state(self, publication: Publication[T]) -> _State:
        key = self._key(publication.context)
        state = self._states.get(key)
        if state is None or state.context is not publication.context:
            count = 1 if publication.event in self._first_only else len(self._publishers)
            state = self._states[key] = _State(publication.context, set(range(count)), set(range(count)))
        return state

    def _take(self, place: int, confirmations: Sequence[Confirmation[T]], rejections: Sequence[Rejection[T]]) -> None:
        """Take what the publisher at `place` reports."""
        with self._lock:
            whole = [each for each in confirmations if self._confirmed(place, each.publication)]
            rejected = [each for each in rejections if self._rejected(place, each.publication)]
        if self._on_settled and (whole or rejected):
            self._on_settled(whole, rejected)

    def _confirmed(self, place: int, publication: Publication[T]) -> bool:
        """Return True if the last confirmation of a publication has come."""
        state = self._known(publication)
        if state is None or place not in state.unconfirmed:
            return False
        state.unconfirmed.remove(place)
        if state.unconfirmed:
            return False
        del self._states[self._key(publication.context)]
        return True

    def _rejected(self, place: int, publication: Publication[T]) -> bool:
        """Return True if the publication is still wanted, and note the publishers that have to publish it again."""
        state = self._known(publication)
        if state is None:
            return False
        state.due.add(place)
        return True

    def _known(self, publication: Publication[T]) -> _State | None:
        state = self._states.get(self._key(publication.context))
        return state if state and state.context is publication.context else None
