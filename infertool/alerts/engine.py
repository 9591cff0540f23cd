"""All rules together: their states, what a firing rule inhibits, silences, and what is to be told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from infertool.alerts.fields import Values
from infertool.alerts.rule import Rule
from infertool.alerts.state import RuleState, State
from infertool.telemetry.stats_document import AlertStats

# Labels of a notification, by the field that gives them.
_LABELS: Final = {"queue": "queue.name", "consumer": "consumer", "model": "model.name"}
_LONGEST_LABEL: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """A rule fires or is resolved. `since` is a Unix time, when it began to fire or was resolved."""

    rule: str
    state: Literal["firing", "resolved"]
    severity: str
    value: float | None
    threshold: float | None
    since: float
    summary: str
    labels: Mapping[str, str]
    sinks: tuple[str, ...]


@dataclass(slots=True)
class Engine:
    """Evaluates `rules`. Not thread-safe: one thread evaluates.

    `now` is seconds on a clock that never jumps, and decides all durations. `wall` is Unix time, and is only shown.
    """

    rules: Iterable[Rule]
    began: float = 0.0
    """The time (`now`) since which all rules are inactive."""
    states: dict[str, RuleState] = field(init=False)
    silences: dict[str, float] = field(default_factory=dict)
    """The time (`now`) until which each silenced rule notifies nobody."""
    untold: dict[str, frozenset[str]] = field(default_factory=dict)
    """By sink, the rules that an earlier run did not get to tell it."""

    def __post_init__(self) -> None:
        """Begin with inactive rules."""
        self.states = {rule.name: RuleState(rule, since=self.began) for rule in self.rules if rule.enabled}

    def evaluate(self, values: Values, now: float, wall: float) -> list[Notification]:
        """Advance all rules, and return what is to be told. A muted rule is told when it is not muted any more."""
        for state in self.states.values():
            state.advance(values, now)
        told = []
        for name, state in self.states.items():
            firing = state.state is State.FIRING
            if firing == state.notified or self._is_held(name, now):
                continue
            state.notified = firing
            self.untold = {sink: names - {name} for sink, names in self.untold.items()}
            told.append(_notification(state, values, wall - (now - state.since)))
        return told

    def late(self, values: Values, now: float, wall: float) -> list[tuple[str, Notification]]:
        """Return what an earlier run did not get to tell, each with its sink; of a muted rule once it is not muted."""
        found = []
        for sink, names in self.untold.items():
            known = [name for name in sorted(names) if name in self.states]
            ready = [name for name in known if not self._is_held(name, now)]
            self.untold[sink] = frozenset(known) - frozenset(ready)
            found += [
                (sink, _notification(self.states[name], values, wall - (now - self.states[name].since)))
                for name in ready
            ]
        return found

    def _is_held(self, name: str, now: float) -> bool:
        return self.states[name].state is State.FIRING and self.is_muted(name, now)

    def firing(self, values: Values, now: float, wall: float) -> list[Notification]:
        """Return what was told and still fires, for receivers that must be told again."""
        return [
            _notification(state, values, wall - (now - state.since))
            for state in self.states.values()
            if state.notified and state.state is State.FIRING
        ]

    def is_muted(self, name: str, now: float) -> bool:
        """Return True if the rule is silenced, or a rule that inhibits it fires."""
        inhibitors = self.states[name].rule.inhibited_by
        inhibited = any(self.states[each].state is State.FIRING for each in inhibitors if each in self.states)
        return inhibited or now < self.silences.get(name, now)

    def shown(self, now: float, wall: float) -> tuple[AlertStats, ...]:
        """Return the states for the stats document."""
        return tuple(
            AlertStats(
                rule=name,
                state=str(state.state),
                severity=state.rule.severity,
                value=state.measure.value if state.measure else None,
                since=wall - (now - state.since),
                summary=_summary(state),
            )
            for name, state in self.states.items()
        )


def _notification(state: RuleState, values: Values, since: float) -> Notification:
    measure = state.measure
    return Notification(
        rule=state.rule.name,
        state="firing" if state.state is State.FIRING else "resolved",
        severity=state.rule.severity,
        value=measure.value if measure else None,
        threshold=measure.threshold if measure else None,
        since=since,
        summary=_summary(state),
        labels={label: _label(values[path]) for label, path in _LABELS.items() if values.get(path) is not None},
        sinks=state.rule.sinks,
    )


def _label(value: object) -> str:
    """Return a label's value: a queue may have any name, and ours must not break a receiver."""
    return str(value)[:_LONGEST_LABEL].encode("utf-8", "replace").decode()


def _summary(state: RuleState) -> str:
    measure = state.measure
    return state.rule.summarize(measure.value if measure else None, measure.threshold if measure else None)
