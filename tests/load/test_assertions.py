"""Assertions over reports: those that hold, those that fail, and those refused before a run."""

from __future__ import annotations

from typing import Any

import pytest

from infertool.errors import UsageError
from infertool.load.assertions import judge, parse
from infertool.load.report import SHARES, document, figures
from infertool.load.tally import Measure
from tests.load.runs import played


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return document(played())


def verdict(expression: str, report: dict[str, Any]) -> dict[str, Any]:
    judge(parse([expression]), report)
    first: dict[str, Any] = report["asserts"][0]
    return first


@pytest.mark.parametrize(
    "expression",
    [
        "lost == 0",
        "e2e.p99_ms > slip.p99_ms && e2e.p99_ms < 60000",
        "failures / sent < 0.02 && failures / sent > 0.01",
        "sent >= planned * 0.999",
        "2.0 * sent == sent + planned",
        "failed_share < 0.02",
        "sent_rate == 100.0",
        "!(late > 0 || dropped > 0 || unsent > 0)",
        "e2e . p50_ms > 0",
        "e2e.count == sent",
    ],
)
def test_assertions_that_hold(report: dict[str, Any], expression: str) -> None:
    assert verdict(expression, report)["passed"]


@pytest.mark.parametrize(
    ("expression", "actual"),
    [("failures == 0", {"failures": 14}), ("e2e.count < 5 || poison > 5", {"e2e.count": 1000, "poison": 3})],
)
def test_assertions_that_fail_show_the_figures(report: dict[str, Any], expression: str, actual: dict[str, int]) -> None:
    assert verdict(expression, report) == {"expression": expression, "passed": False, "actual": actual}


def test_every_figure_can_be_asserted(report: dict[str, Any]) -> None:
    # An event is seen on a topic, or answered.
    only_of_requests = {"timed_out", "shed", "unavailable", "retried", "retry_served", *SHARES}
    for name, value in figures(report).items():
        if name in only_of_requests or name.startswith(("reply.", "http.")):
            continue
        assert value is not None
        assert verdict(f"{name} == {float(value)!r}", report)["passed"], name


@pytest.mark.parametrize("expression", ["lost == 0", "lost != 5", "e2e.p99_ms < 500", "!(lost > 0)"])
def test_an_assertion_on_an_unmeasured_figure_fails(expression: str) -> None:
    report = document(played(measures=(Measure.SLIP,)))
    assert not verdict(expression, report)["passed"]


def test_an_assertion_on_a_measure_without_samples_fails() -> None:
    report = document(played(seconds=0, warmup=0))
    assert not verdict("e2e.p99_ms < 500", report)["passed"]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("e2e.p98_ms < 500", "no report has e2e.p98_ms; did you mean 'e2e.p99_ms'"),
        ("lots == 0", "no report has lots; did you mean 'lost'"),
        ("e2d.p99_ms < 1", "no report has e2d.p99_ms; did you mean 'e2e.p99_ms'"),
        ("xyzzy == 0", "no report has xyzzy; there are planned, sent, "),
        ("sent > 0 || xyzzy == 0", "no report has xyzzy"),
        ("sent > 0 || e2e.xyzzy == 0", "no report has e2e.xyzzy"),
        ("payload.sent > 0", "no report has payload.sent"),
        ("e2e == 3", "no report has e2e"),
        ("e2e.p99_ms <", "something is missing at its end"),
        ("", "something is missing at its end"),
        ("e2e.p99_ms", "its result is not true or false"),
        ("e2e.p99_ms < '500'", "No such overload"),
        ("2 * sent > planned", "write 2.0 \\* sent, not 2 \\* sent"),
        ("maximum(sent) > 1", "there is no function maximum"),
        ("3 < 2 ? 1 : 2", "its result is not true or false"),
    ],
)
def test_invalid_assertions_are_refused_before_a_run(expression: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse([expression])


@pytest.mark.parametrize(
    ("expression", "option"),
    [
        ("lost == 0", "--e2e"),
        ("e2e.p99_ms < 1", "--e2e"),
        ("confirmed > 1", "--confirm"),
        ("send.max_ms < 1", "--confirm"),
    ],
)
def test_assertions_on_unmeasured_figures_are_refused_before_a_run(expression: str, option: str) -> None:
    with pytest.raises(UsageError, match=f"needs {option}"):
        parse([expression], [Measure.SLIP])
    assert parse([expression])


def test_a_closed_model_has_no_slip_to_assert() -> None:
    with pytest.raises(UsageError, match="a closed model has no plan"):
        parse(["slip.p99_ms < 2"], [Measure.E2E])
