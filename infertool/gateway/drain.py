"""The drain rate: how many requests finish in a second while there is work. It is capacity, not load.

Time counts only while requests are pending at the broker, so idle time changes nothing. A *fold* is a second of such
time.

- A fold in which the gateway held requests back all the time, because the broker had as many as it may have, shows
  the capacity: the rate moves towards it, up or down.
- In any other fold the consumers may have had nothing to do at times. It shows that the capacity is at least this: it
  raises the rate, and never lowers it.
"""

from __future__ import annotations

from collections.abc import Callable

FOLD_S = 1.0
WEIGHT = 0.3
"""Weight of the newest fold: after 7 folds, nine tenths of a change are seen."""
_RISE, _RISE_WEIGHT = 1.25, 0.7
"""The second fold in a row that is this many times the rate weighs more: with little load the rate is too low."""
_MOST_FOLDS = 5
"""Folds that a gap counts for. Nobody looked at the clock meanwhile; the machine may have slept."""


class DrainRate:
    """Requests a second, as a moving average of 1 s folds. `clock` is monotonic. For one thread.

    `pending` must be called at each change of what is pending. Without it, a second counts if something finished in it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()
        self._busy_s = 0.0
        self._completed = 0
        self._pending: int | None = None
        self._held_back = True
        self._all_held_back = True
        self._per_s: float | None = None
        self._risen = False

    @property
    def per_s(self) -> float | None:
        """The rate; None until the first fold with a completion has ended."""
        self._advance()
        return self._per_s

    def completed(self, number: int = 1) -> None:
        """Count requests that consumers finished: results and failures, not what expired before the model."""
        self._advance()
        self._completed += number

    def pending(self, at_broker: int, *, held_back: bool) -> None:
        """Note the requests pending at the broker, and whether the gateway holds others back until these finish."""
        self._advance()
        if self._pending is None:
            self._busy_s = 0.0
        self._pending, self._held_back = at_broker, held_back
        self._all_held_back = self._all_held_back and held_back

    def _advance(self) -> None:
        now = self._clock()
        passed, self._last = max(now - self._last, 0.0), now
        if self._pending == 0:
            return
        if self._pending is None:
            passed = min(passed, FOLD_S)
        self._busy_s += passed
        if self._busy_s < FOLD_S:
            return
        if self._pending is not None or self._completed:
            self._fold()
        self._busy_s, self._completed = 0.0, 0
        self._all_held_back = self._held_back

    def _fold(self) -> None:
        seen = self._completed / self._busy_s
        if self._per_s is None:
            self._per_s = seen or None
        elif self._all_held_back or seen > self._per_s:
            folds = min(self._busy_s / FOLD_S, _MOST_FOLDS)
            rises = seen > _RISE * self._per_s
            weight = _RISE_WEIGHT if rises and self._risen else WEIGHT
            self._risen = rises
            self._per_s += (1 - (1 - weight) ** folds) * (seen - self._per_s)
