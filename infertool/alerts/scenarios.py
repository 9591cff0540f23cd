"""Tests of rules: series of fields in, expected states out, in a TOML file. docs/alerts.md describes its form."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infertool.alerts import fields
from infertool.alerts.engine import Engine
from infertool.alerts.fields import Scalar
from infertool.alerts.rule import Rule
from infertool.alerts.state import State
from infertool.errors import UsageError
from infertool.text.input import did_you_mean, parse_duration

_NUMBER: Final = r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_STEPS: Final = re.compile(rf"(?P<first>{_NUMBER})(?:(?P<step>[+-]{_NUMBER.removeprefix('-?')}))?(?:x(?P<times>\d+))?")
_UNKNOWN: Final = re.compile(r"_(?:x(\d+))?")
_TRUTH: Final = re.compile(r"(true|false)(?:x(\d+))?")
_TIME_PART: Final = re.compile(r"\d+(?:\.\d+)?(?:ms|s|m|h)")
_MOST_SAMPLES: Final = 1_000_000
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "int": (int,), "double": (int, float), "string": (str,), "bool": (bool,),
}  # fmt: skip
_KEYS: Final = ("name", "interval", "series", "expect")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One test: a sample of each series every `interval_s`, and expected states by time and rule."""

    name: str
    interval_s: float
    series: Mapping[str, Sequence[Scalar | None]]
    expected: Sequence[tuple[float, str, State]]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A rule was in another state than expected, `at` seconds after the start."""

    at: float
    rule: str
    expected: State
    found: State


def run(scenario: Scenario, rules: Sequence[Rule]) -> list[Mismatch]:
    """Evaluate `rules` on the series; what lies behind the end of a series is missing."""
    engine = Engine([rule for rule in rules if rule.name in {name for _, name, _ in scenario.expected}])
    waiting = sorted(scenario.expected, key=lambda each: each[0])
    mismatches: list[Mismatch] = []
    sample = 0
    while waiting:
        now = sample * scenario.interval_s
        while waiting and waiting[0][0] < now:
            mismatches += _compared(engine, *waiting.pop(0))
        values = {path: series[sample] for path, series in scenario.series.items() if sample < len(series)}
        engine.evaluate(values, now, now)
        sample += 1
    return mismatches


def _compared(engine: Engine, at: float, rule: str, expected: State) -> Iterator[Mismatch]:
    found = engine.states[rule].state
    if found is not expected:
        yield Mismatch(at, rule, expected, found)


def read(path: Path, rules: Sequence[Rule]) -> list[Scenario]:
    """Return the tests in the file. Raises `UsageError` that names the file and the test."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    tests = tables.pop("tests", None)
    if tables or not isinstance(tests, list) or not tests or not all(isinstance(each, dict) for each in tests):
        raise UsageError(f"{path} is no file of tests", advice="write [[tests]], and nothing beside them")
    names = {rule.name for rule in rules if rule.enabled}
    return [
        _Reader(f"{path}: test {table.get('name', number)}", names).read(table) for number, table in enumerate(tests, 1)
    ]


@dataclass(frozen=True, slots=True)
class _Reader:
    where: str
    rules: set[str]

    def read(self, table: Mapping[str, Any]) -> Scenario:
        for key in table:
            if key not in _KEYS:
                raise self._error(f"there is no key {key}", did_you_mean(key, _KEYS) or f"known: {', '.join(_KEYS)}")
        interval_s = self._time(table.get("interval", "1s"))
        series, expect = table.get("series"), table.get("expect")
        if not isinstance(series, dict) or not isinstance(expect, dict) or not any(expect.values()):
            raise self._error("it needs the tables series and expect, with a state")
        if interval_s <= 0:
            raise self._error("interval must be more than 0")
        expected = [each for time, states in expect.items() for each in self._states(time, states)]
        if max(at for at, _, _ in expected) > interval_s * _MOST_SAMPLES:
            raise self._error(f"it lasts longer than {_MOST_SAMPLES} intervals")
        return Scenario(
            str(table.get("name", "")),
            interval_s,
            {path: self._series(path, written) for path, written in series.items()},
            expected,
        )

    def _states(self, time: str, states: object) -> Iterator[tuple[float, str, State]]:
        if not isinstance(states, dict):
            raise self._error(f"expect {time} is no table", 'write "5m" = {Backlog = "firing"}')
        for rule, state in states.items():
            if rule not in self.rules:
                raise self._error(f"there is no rule {rule}", did_you_mean(rule, self.rules))
            if state not in {str(each) for each in State}:
                raise self._error(f"{rule} cannot be {state}", f"states: {', '.join(State)}")
            yield self._time(time), rule, State(state)

    def _series(self, path: str, written: object) -> list[Scalar | None]:
        field = fields.known().get(path)
        if field is None:
            raise self._error(f"there is no field {path}", did_you_mean(path, fields.known()))
        samples = written if isinstance(written, list) else self._expanded(path, written)
        for sample in samples:
            if sample is not None and type(sample) not in _TYPES[field.kind]:
                raise self._error(f"{sample!r} is no value of {path}", f"it takes {field.kind}")
        return samples

    def _expanded(self, path: str, written: object) -> list[Scalar | None]:
        if not isinstance(written, str):
            raise self._error(f"the series of {path} is neither a list nor text", 'write for example "0 10x5 10+5x3 _"')
        samples: list[Scalar | None] = []
        for word in written.split():
            if match := _UNKNOWN.fullmatch(word):
                samples += [None] * self._count(match[1] or "1")
            elif match := _TRUTH.fullmatch(word):
                samples += [match[1] == "true"] * (self._count(match[2] or "0") + 1)
            elif match := _STEPS.fullmatch(word):
                samples += self._steps(match)
            else:
                raise self._error(f"{word} in the series of {path} is no sample", "write 5, 5x3, 5+1x3, truex3 or _x3")
        return samples

    def _steps(self, match: re.Match[str]) -> list[float]:
        # As in Prometheus' tests: 5x3 is four samples, 5+1x3 is 5 6 7 8.
        whole = not re.search(r"[.eE]", match[0])
        first, step = (int if whole else float)(match["first"]), (int if whole else float)(match["step"] or "0")
        return [first + step * number for number in range(self._count(match["times"] or "0") + 1)]

    def _count(self, text: str) -> int:
        if len(text) > len(str(_MOST_SAMPLES)) or int(text) > _MOST_SAMPLES:
            raise self._error(f"a series has at most {_MOST_SAMPLES} samples")
        return int(text)

    def _time(self, text: object) -> float:
        parts = _TIME_PART.findall(str(text))
        try:
            # 2m30s, too.
            whole = len(parts) > 1 and "".join(parts) == text
            return sum(map(parse_duration, parts)) if whole else parse_duration(str(text))
        except UsageError as error:
            raise self._error(error.what, error.advice) from None

    def _error(self, reason: str, advice: str = "") -> UsageError:
        return UsageError(f"{self.where}: {reason}", advice=advice)
