"""The state of one rule, advanced by what its conditions say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from infertool.alerts.condition import Measure
from infertool.alerts.fields import Values
from infertool.alerts.rule import Rule

# A resolved rule is shown as such for this time.
RESOLVED_S: Final = 300.0


class State(StrEnum):
    """The states of a rule."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"
    NODATA = "nodata"


@dataclass(slots=True)
class RuleState:
    """State of `rule`. Times are seconds on one clock that never jumps, and `since` is when the state was entered.

    `clear_since` is when the condition to resolve was first met, `unknown_since` when data was first missing.
    Missing data never resolves a rule: a firing rule goes on firing, and a pending one waits for `for`, then it is
    `nodata`.
    """

    rule: Rule
    state: State = State.INACTIVE
    since: float = 0.0
    measure: Measure | None = None
    notified: bool = False
    clear_since: float | None = None
    unknown_since: float | None = None

    def advance(self, values: Values, now: float) -> None:
        """Take the state that follows from `values` at `now`."""
        holds = self.rule.when.holds(values)
        measure = self.rule.when.measure(values) if holds is not None else None
        self.measure = measure or self.measure
        if self.state is State.FIRING:
            self._while_firing(values, now, holds=holds)
        elif holds is None:
            self._without_data(now)
        elif holds:
            self._while_true(now)
        else:
            self._while_false(now)
        if holds is not None:
            self.unknown_since = None

    def _while_firing(self, values: Values, now: float, *, holds: bool | None) -> None:
        clear = self._is_clear(values, holds=holds)
        if clear is None:
            return
        if not clear:
            self.clear_since = None
            return
        if self.clear_since is None:
            self.clear_since = now
        if now - self.clear_since >= self.rule.keep_firing_for_s:
            self._enter(State.RESOLVED, now)

    def _is_clear(self, values: Values, *, holds: bool | None) -> bool | None:
        if self.rule.clear is None:
            return None if holds is None else not holds
        return False if holds else self.rule.clear.holds(values)

    def _without_data(self, now: float) -> None:
        if self.unknown_since is None:
            self.unknown_since = now
        waits = self.state is State.PENDING and now - self.unknown_since < self.rule.for_s
        if not waits:
            self._enter(State.NODATA, now)

    def _while_true(self, now: float) -> None:
        if self.state is not State.PENDING:
            self._enter(State.PENDING, now)
        if now - self.since >= self.rule.for_s:
            self._enter(State.FIRING, now)

    def _while_false(self, now: float) -> None:
        if self.state is State.RESOLVED and now - self.since < RESOLVED_S:
            return
        self._enter(State.INACTIVE, now)

    def _enter(self, state: State, now: float) -> None:
        if state is not self.state:
            self.state, self.since, self.clear_since = state, now, None
