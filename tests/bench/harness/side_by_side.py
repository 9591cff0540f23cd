"""Programs that are run in turn, and the rows that compare their rates."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from pytest_benchmark.fixture import BenchmarkFixture

from tests.bench.harness.fixtures import Row

# What is measured, the names of the two programs, and the goal.
Comparison = tuple[str, str, str, str]


def compare(
    benchmark: BenchmarkFixture,
    row: Row,
    runners: Mapping[str, Callable[[], float]],
    comparisons: Sequence[Comparison],
    *,
    title: str,
    rounds: int,
) -> None:
    """Run each program once a round, after a first round that does not count, and print a row for each comparison.

    A runner returns events a second. A program that is not among the runners is not installed.
    """
    rates: dict[str, list[float]] = {name: [] for name in runners}

    def one_round() -> None:
        for name, run in runners.items():
            rates[name].append(run())

    benchmark.pedantic(one_round, rounds=rounds, warmup_rounds=1)
    if benchmark.disabled:
        return  # it ran one round, and that one does not count
    for case, ours, theirs, goal in comparisons:
        if theirs not in rates:
            row(f"{title}: {case}", "not installed", goal)
            continue
        ratio = statistics.median(a / b for a, b in zip(rates[ours][1:], rates[theirs][1:], strict=True))
        row(f"{title}: {case}", f"{ratio:.2f}x ({_median(rates[ours])} against {_median(rates[theirs])}/s)", goal)


def _median(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates[1:]):.0f}"
