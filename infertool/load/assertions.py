"""`--assert`: CEL expressions over a report, such as `e2e.p99_ms < 500` or `lost == 0`.

Every figure is a floating-point number, so that `failures / sent < 0.01` is not a whole-number division. CEL does not
mix number types in arithmetic: write `sent >= planned * 0.99`, and `2.0 *`, not `2 *`. Comparisons take both.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from infertool.errors import UsageError
from infertool.filters import expression as filters
from infertool.load.report import COUNTS, FIGURES, OPTION_OF, SHARES, SUMS, figures
from infertool.load.tally import Measure
from infertool.text.input import did_you_mean

_NEEDS_E2E = frozenset(
    {
        "results", "failures", "dead_lettered", "queued", "lost", "duplicates", "out_of_order", "queue_before",
        "queue_after", "result_rate", "failed_share",
    }
)  # fmt: skip
# Of these, what replies tell, too.
_OF_REPLIES = frozenset({"results", "failures", "lost", "duplicates", "result_rate", "failed_share"})
_OF_RESPONSES = frozenset({"results", "failures", "lost", "timed_out", "result_rate", "failed_share"})
_NEEDS_HTTP = frozenset({"shed", "unavailable", "retried", "retry_served", *SHARES})
_STRINGS = re.compile(r"""r?"[^"]*"|r?'[^']*'""")
_KNOWN = (*COUNTS, *SUMS, *SHARES, *(f"{measure}.{figure}" for measure in Measure for figure in FIGURES))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of an assertion. `actual` holds the figures that it names; None stands for an unknown one."""

    expression: str
    passed: bool
    actual: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Assertion:
    """A compiled expression and the figures it names."""

    expression: str
    names: tuple[str, ...]
    _filter: filters.Filter

    def check(self, report: Mapping[str, Any]) -> Verdict:
        """Return the verdict. An assertion that names an unknown figure fails."""
        known = figures(report)
        actual = {name: known[name] for name in self.names}
        passed = None not in actual.values() and self._filter.matches(_nested(known))
        return Verdict(self.expression, passed, actual)


def parse(expressions: Iterable[str], measures: Collection[Measure] = tuple(Measure)) -> tuple[Assertion, ...]:
    """Return the compiled expressions. Raises UsageError for one that is invalid or needs an unmeasured figure."""
    return tuple(_parse(expression, measures) for expression in expressions)


def judge(assertions: Iterable[Assertion], report: dict[str, Any]) -> None:
    """Add the verdicts to the report, as `asserts`."""
    report["asserts"] = [asdict(assertion.check(report)) for assertion in assertions]


def _parse(expression: str, measures: Collection[Measure]) -> Assertion:
    try:
        compiled = filters.compile(expression)
    except filters.FilterError as fault:
        raise _broken(fault) from None
    names = _names(compiled)
    _check_measured(expression, names, measures)
    try:
        compiled.evaluate(_nested(dict.fromkeys(_KNOWN, 1.0)))
    except filters.FilterError as fault:
        raise _broken(fault, "figures are floating-point numbers: write 2.0 * sent, not 2 * sent") from None
    return Assertion(expression, names, compiled)


def _broken(fault: filters.FilterError, advice: str = "") -> UsageError:
    return UsageError(f"--assert {fault.expression!r} cannot work: {fault.reason}", advice=fault.advice or advice)


def _names(compiled: filters.Filter) -> tuple[str, ...]:
    """Return the figures that an expression names. Raises UsageError for an unknown name."""
    code = _STRINGS.sub("''", compiled.expression)
    found: list[str] = []
    for variable in compiled.names:
        inner = re.findall(rf"(?<![\w.]){variable}\s*\.\s*(\w+)", code)
        found += [f"{variable}.{name}" for name in dict.fromkeys(inner)] or [variable]
    for name in found:
        if name not in _KNOWN:
            advice = did_you_mean(name, _KNOWN) or f"there are {', '.join((*COUNTS, *SUMS))}, e2e.p99_ms and the like"
            raise UsageError(f"--assert {compiled.expression!r} cannot work: no report has {name}", advice=advice)
    return tuple(found)


def _check_measured(expression: str, names: Iterable[str], measures: Collection[Measure]) -> None:
    for name in names:
        needed = _measure_of(name)
        if needed is None or needed in measures or (name in _OF_REPLIES and Measure.REPLY in measures):
            continue
        if name in _OF_RESPONSES and Measure.HTTP in measures:
            continue
        if needed is Measure.SLIP:
            raise UsageError(f"--assert {expression!r} cannot work: a closed model has no plan, so nothing slips")
        raise UsageError(f"--assert {expression!r} needs {OPTION_OF[needed]}", advice=f"else {name} is not measured")


def _measure_of(name: str) -> Measure | None:
    if name in _NEEDS_E2E:
        return Measure.E2E
    if name in _NEEDS_HTTP:
        return Measure.HTTP
    if name == "confirmed":
        return Measure.SEND
    if name == "timed_out":
        return Measure.REPLY
    outer, dot, _ = name.partition(".")
    return Measure(outer) if dot else None


def _nested(known: Mapping[str, float | None]) -> dict[str, Any]:
    """Return figures as the variables of an expression: `e2e.p99_ms` becomes `p99_ms` in `e2e`."""
    tree: dict[str, Any] = {measure.value: {} for measure in Measure}
    for name, value in known.items():
        outer, _, inner = name.rpartition(".")
        (tree[outer] if outer else tree)[inner] = None if value is None else float(value)
    return tree
