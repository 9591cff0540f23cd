"""Alert rules: what a table `[[alerts]]` says, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infertool.alerts import condition
from infertool.alerts.condition import Condition
from infertool.errors import SettingsError, UsageError
from infertool.text.input import did_you_mean, parse_duration

# The ways out; a rule without `sinks` uses all that are configured.
SINKS: Final = ("phoenix", "alertmanager", "webhook", "command")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_NAME: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. Durations are in seconds.

    It fires when `when` has held for `for_s`. It resolves when `clear` (or, without one, the opposite of `when`) has
    held for `keep_firing_for_s`. While a rule named in `inhibited_by` fires, it notifies nobody.
    """

    name: str
    when: Condition
    clear: Condition | None = None
    for_s: float = 0.0
    keep_firing_for_s: float = 0.0
    severity: str = "ticket"
    sinks: tuple[str, ...] = ()
    enabled: bool = True
    summary: str = ""
    inhibited_by: tuple[str, ...] = ()

    def summarize(self, value: float | None, threshold: float | None) -> str:
        """Return the summary with {value} and {threshold} filled in."""
        shown = self.summary.replace("{value}", _number(value)).replace("{threshold}", _number(threshold))
        return shown or self.when.text


_KEYS: Final = {
    "name": str, "when": str, "clear": str, "for": str, "keep_firing_for": str, "severity": str, "sinks": list,
    "enabled": bool, "summary": str, "inhibited_by": list,
}  # fmt: skip
_EXPECTED: Final = {str: "text", list: "a list of texts", bool: "true or false"}


def parse_rules(tables: Sequence[Mapping[str, Any]], shipped: Sequence[Mapping[str, Any]], origin: str) -> list[Rule]:
    """Return the rules: the shipped ones with the keys that `tables` give, then those of `tables` alone.

    Raises `SettingsError` that names `origin`, or `ConditionError`.
    """
    merged: dict[str, dict[str, Any]] = {table["name"]: dict(table) for table in shipped}
    for number, table in enumerate(tables, 1):
        name = _name(table, number, origin)
        merged[name] = {**merged.get(name, {}), **table}
    rules = [_rule(table, origin) for table in merged.values()]
    for rule in rules:
        for other in rule.inhibited_by:
            if other not in merged:
                raise _error(origin, rule.name, f"there is no rule {other}", did_you_mean(other, merged))
    return rules


def _name(table: Mapping[str, Any], number: int, origin: str) -> str:
    name = table.get("name")
    if not isinstance(name, str) or len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        said = "has no name" if name is None else "has a name that is no word of letters, digits and _"
        raise SettingsError(f"{origin}: table {number} of [[alerts]] {said}", key="alerts", origin=origin)
    return name


def _rule(table: Mapping[str, Any], origin: str) -> Rule:
    name = table["name"]
    for key, value in table.items():
        _check(name, key, value, origin)
    if "when" not in table:
        advice = 'write for example when = "queue.depth > 1000"'
        raise _error(origin, name, "it has no `when`, and no shipped rule has this name", advice)
    sinks = tuple(table.get("sinks", ()))
    for sink in sinks:
        if sink not in SINKS:
            advice = did_you_mean(sink, SINKS) or f"known: {', '.join(SINKS)}"
            raise _error(origin, name, f"there is no sink {sink}", advice)
    clear = table.get("clear", "")
    return Rule(
        name=name,
        when=condition.compile(table["when"], _subject(origin, name, "when")),
        clear=condition.compile(clear, _subject(origin, name, "clear")) if clear else None,
        for_s=_duration(origin, table, "for"),
        keep_firing_for_s=_duration(origin, table, "keep_firing_for"),
        severity=table.get("severity", "ticket"),
        sinks=sinks,
        enabled=table.get("enabled", True),
        summary=table.get("summary", ""),
        inhibited_by=tuple(table.get("inhibited_by", ())),
    )


def _check(name: str, key: str, value: object, origin: str) -> None:
    if key not in _KEYS:
        advice = did_you_mean(key, _KEYS) or f"known: {', '.join(_KEYS)}"
        raise _error(origin, name, f"there is no key {key}", advice)
    expected = _KEYS[key]
    if not isinstance(value, expected) or (
        isinstance(value, list) and not all(isinstance(each, str) for each in value)
    ):
        raise _error(origin, name, f"{key} must be {_EXPECTED[expected]}")
    if key == "severity" and not _NAME.fullmatch(str(value)):
        raise _error(origin, name, "severity must be a word of letters, digits and _")


def _duration(origin: str, table: Mapping[str, Any], key: str) -> float:
    try:
        return parse_duration(table.get(key, "0s"), key)
    except UsageError as error:
        raise _error(origin, table["name"], error.what, error.advice) from None


def _subject(origin: str, name: str, key: str) -> str:
    return f"{origin}: `{key}` of the alert rule {name}"


def _error(origin: str, name: str, reason: str, advice: str = "") -> SettingsError:
    return SettingsError(f"{origin}: alert rule {name}: {reason}", key=f"alerts.{name}", origin=origin, advice=advice)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"
