"""How long `infertool --help` takes, and what it imports, against importing typer alone."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time

from pytest_benchmark.fixture import BenchmarkFixture

from tests.bench.harness.fixtures import Row

PAIRS = 9
HELP = ("-m", "infertool", "--help")
TYPER = ("-c", "import typer")
_LINE = re.compile(r"^import time: +(\d+) \| +\d+ \|", re.MULTILINE)


def seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def imports(*arguments: str) -> tuple[float, int]:
    """Return the milliseconds that imports took, by `-X importtime`, and how many modules there were."""
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], check=True, capture_output=True, text=True)
    times = [int(microseconds) for microseconds in _LINE.findall(done.stderr)]
    return sum(times) / 1000, len(times)


def test_help_against_importing_typer(benchmark: BenchmarkFixture, row: Row) -> None:
    ratios = []
    benchmark.pedantic(
        lambda: ratios.append(seconds(*HELP) / seconds(*TYPER)),
        rounds=PAIRS,
        warmup_rounds=1,
    )
    row("`infertool --help` against `python -c 'import typer'`", f"{statistics.median(ratios[1:]):.2f}x", "at most 2x")


def test_imports_against_those_of_typer(benchmark: BenchmarkFixture, row: Row) -> None:
    pairs = []
    benchmark.pedantic(lambda: pairs.append((imports(*HELP), imports(*TYPER))), rounds=PAIRS, warmup_rounds=1)
    ratio = statistics.median(ours / bare for (ours, _), (bare, _) in pairs[1:])
    (_, modules), (_, bare_modules) = pairs[-1]
    row(
        "the same by -X importtime",
        f"{ratio:.2f}x of the time, {modules} modules against {bare_modules}",
        "at most 2x",
    )
