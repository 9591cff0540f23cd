"""What a running consumer shows: one live line on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from infertool.cli.repeated import repeated
from infertool.telemetry.logs import log
from infertool.telemetry.stats import Snapshot

REFRESH_PER_S = 4


class Figures(Protocol):
    """Whose status is shown."""

    def snapshot(self) -> Snapshot:
        """Return the figures now."""


def line(snapshot: Snapshot) -> str:
    """Return the figures in one line."""
    counts = snapshot.counts
    p99 = snapshot.latency_ms.p99
    parts = [
        f"{counts['succeeded']} succeeded",
        f"{counts['dead_lettered']} dead-lettered",
        f"{counts['retried']} retried",
        f"{snapshot.rate:.0f}/s",
        "p99 -" if p99 is None else f"p99 {p99:.0f} ms",
        *([f"circuit {snapshot.circuit}"] if snapshot.circuit in {"open", "half-open"} else []),
        *(f"{name.replace('_', ' ')} {value}" for name, value in snapshot.tuned.items()),
        *(f"{side} {state}" for side, state in sorted(snapshot.links.items())),
    ]
    return " | ".join([*parts, "PAUSED by Phoenix"] if snapshot.paused else parts)


@contextmanager
def shown(stats: Figures, interval_s: float, *, quiet: bool) -> Iterator[None]:
    """Show the status while the block runs."""
    if quiet:
        yield
    elif sys.stderr.isatty():
        with _live(stats):
            yield
    else:
        with repeated(lambda: log.info("%s", line(stats.snapshot())), interval_s):
            yield


@contextmanager
def _live(stats: Figures) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def render() -> Text:
        return Text(line(stats.snapshot()), overflow="ellipsis", no_wrap=True)

    console = Console(stderr=True)
    with Live(console=console, get_renderable=render, refresh_per_second=REFRESH_PER_S, redirect_stdout=False):
        yield
