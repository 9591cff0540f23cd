"""How long `infertool --help` takes, against importing typer alone."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

PAIRS = 9


def seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def test_help_against_importing_typer(benchmark, row) -> None:
    ratios = []
    benchmark.pedantic(
        lambda: ratios.append(seconds("-m", "infertool", "--help") / seconds("-c", "import typer")),
        rounds=PAIRS,
        warmup_rounds=1,
    )
    row("`infertool --help` against `python -c 'import typer'`", f"{statistics.median(ratios[1:]):.2f}x", "at most 2x")
