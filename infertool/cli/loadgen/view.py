"""The view of a load run (a live panel on a terminal, lines elsewhere), and its report as text."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from infertool.cli.common import console
from infertool.errors import InfertoolError
from infertool.load.report import Rows, actual, comparison_rows, facts, remarks, times
from infertool.load.tally import Measure
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.text import sanitize
from infertool.text.sanitize import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

    from infertool.load.options import LoadOptions
    from infertool.load.record import RunInfo, Second
    from infertool.load.tally import Tally


_LINE_EVERY_S = 5
_REFRESH_PER_S = 4
_BARS = " ▁▂▃▄▅▆▇█"
_HISTORY = 60
_FROM_INTENDED = dict.fromkeys((Measure.E2E, Measure.REPLY, Measure.HTTP), "  (from the intended send)")
# What ends a request without a result, in words.
_REFUSED = {"shed": "shed", "unavailable": "unavailable", "timed_out": "timed out"}


class View:
    """Shows a run. `second` and `connection_changed` may be called from any thread."""

    def __init__(self, options: LoadOptions, *, quiet: bool) -> None:
        self._options = options
        self._quiet = quiet
        self._live = not quiet and sys.stderr.isatty()
        self._seconds: deque[Second] = deque(maxlen=_HISTORY)
        self._lost: dict[str, str] = {}
        self.stopping = "stopping; Ctrl-C again leaves at once"
        if options.awaits_results:
            self.stopping = "stopping: waiting for what was sent; Ctrl-C again leaves at once"

    def second(self, second: Second) -> None:
        """Add the counts of a second."""
        self._seconds.append(second)
        if not self._quiet and not self._live and second.t >= 0 and second.t % _LINE_EVERY_S == _LINE_EVERY_S - 1:
            console.err(self._line(list(self._seconds)[-_LINE_EVERY_S:]))

    def connection_changed(self, side: str, event: ConnectionEvent) -> None:
        """Print a lost connection once, and its return."""
        lost = event.state is ConnectionState.LOST
        if lost and side not in self._lost:
            self._lost[side] = event.address
            doing = "what is planned meanwhile counts as unsent" if side == "broker" else "what comes out is not seen"
            console.err(f"lost {event.address}: {event.reason}; connecting again, {doing}")
        elif event.state is ConnectionState.CONNECTED and self._lost.pop(side, ""):
            console.err(f"connected again to {event.address}")

    def process_died(self, text: str) -> None:
        """Print the death of a load process."""
        console.err(f"{text}; the others go on")

    @contextmanager
    def shown(self, tally: Tally, info: RunInfo) -> Iterator[None]:
        """Show the run while the block runs."""
        if not self._live:
            if not self._quiet:
                console.err(f"{info.plan}, to {info.queue} at {info.broker}; Ctrl-C ends it")
            yield
            return
        from rich.console import Console
        from rich.live import Live

        stderr = Console(stderr=True)
        with Live(
            console=stderr, get_renderable=lambda: self._panel(tally, info), refresh_per_second=_REFRESH_PER_S,
            redirect_stdout=False, transient=True,
        ):  # fmt: skip
            yield

    def _line(self, seconds: list[Second]) -> str:
        """Return the sums of `seconds` as a line."""
        length = len(seconds)
        parts = [f"{seconds[-1].t + 1:>5} s", f"{sum(each.sent for each in seconds) / length:,.0f}/s sent"]
        parts += [
            f"{total} {name}" for name in ("late", "dropped", "unsent")
            if (total := sum(getattr(each, name) for each in seconds))
        ]  # fmt: skip
        if self._options.awaits_results:
            out = sum(each.results + each.failures for each in seconds)
            parts.append(f"{out / length:,.0f}/s {'came out' if self._options.e2e else 'answered'}")
            for name, word in _REFUSED.items():
                if count := sum(getattr(each, name) for each in seconds):
                    parts.append(f"{count} {word}")
        for measure in self._options.measures:
            times = [each.latency_ms[measure].p99 for each in seconds if measure in each.latency_ms]
            worst = max((each for each in times if each is not None), default=None)
            parts.append(f"{measure} p99 {'-' if worst is None else f'{worst:.1f} ms'}")
        return ", ".join(parts)

    def _panel(self, tally: Tally, info: RunInfo) -> RenderableType:
        from rich.panel import Panel
        from rich.text import Text

        seconds = list(self._seconds)
        text = "\n".join([*self._sums(tally.totals()), *self._rates(seconds), *self._latest(seconds)])
        return Panel(
            Text(text, no_wrap=True, overflow="ellipsis"),
            title=Text(clean(f"loadgen: {info.plan}")), title_align="left", border_style=self._colour(seconds),
            subtitle=Text(clean(f"to {info.queue} at {info.broker}; Ctrl-C ends it")), subtitle_align="left",
        )  # fmt: skip

    def _colour(self, seconds: list[Second]) -> str:
        if self._lost:
            return "red"
        return "yellow" if seconds and (seconds[-1].late or seconds[-1].dropped or seconds[-1].unsent) else "green"

    def _sums(self, totals: Mapping[str, int]) -> list[str]:
        sent = f"{totals['sent']:,} sent of {totals['planned']:,} planned"
        behind = "".join(f", {totals[name]:,} {name}" for name in ("late", "dropped", "unsent") if totals[name])
        lines = [f"    sums  {sent}{behind}"]
        if self._options.confirm:
            lines.append(f"          {totals['confirmed']:,} confirmed")
        if self._options.awaits_results:
            # Other processes report sent events with a delay: results may be ahead.
            ended = sum(totals[name] for name in ("results", "failures", "lost", *_REFUSED))
            left = max(totals["sent"] - ended, 0)
            refused = "".join(f"{totals[name]:,} {word}, " for name, word in _REFUSED.items() if totals[name])
            lines.append(
                f"          {totals['results']:,} results + {totals['failures']:,} failures, {refused}"
                f"{left:,} on the way, {totals['duplicates']:,} duplicates"
            )
        return lines

    def _rates(self, seconds: list[Second]) -> list[str]:
        sent = [each.sent for each in seconds]
        lines = [f"  sent/s  {bars(sent)} {sent[-1]:,}" if sent else "  sent/s  -"]
        if self._options.awaits_results and seconds:
            out = [each.results + each.failures for each in seconds]
            lines.append(f"   out/s  {bars(out)} {out[-1]:,}")
        return lines

    def _latest(self, seconds: list[Second]) -> list[str]:
        lines = []
        for measure in self._options.measures:
            known = [each.latency_ms[measure] for each in seconds if measure in each.latency_ms]
            figures = "-"
            if known:
                last = known[-1]
                figures = f"p50 {last.p50:,.1f} ms, p99 {last.p99:,.1f} ms, max {last.max:,.1f} ms"
            lines.append(f"{measure:>8}  {figures}" + (_FROM_INTENDED.get(measure, "")))
        return lines


def bars(values: list[int]) -> str:
    """Return `values` as a line of bars; the largest value is a full bar."""
    most = max([*values, 1])
    return "".join(_BARS[-(-value * (len(_BARS) - 1) // most)] for value in values)


def summary(report: Mapping[str, Any], name: str = "") -> list[str]:
    """Return the summary of a report as lines; `name` is its file's name."""
    rows = facts(report)
    width = sanitize.widest(label for label, _ in rows)
    lines = [name] if name else []
    lines += [f"{sanitize.right(label, width)}  {text}" for label, text in rows]
    lines += ["", *_aligned(times(report))]
    notes = [f"note: {text}" for text in remarks(report)]
    verdicts = [
        f"{'held' if verdict['passed'] else 'FAILED'}  {verdict['expression']}  ({actual(verdict)})"
        for verdict in report["asserts"]
    ]
    return [*lines, *([""] if notes or verdicts else []), *notes, *verdicts]


def check(report: Mapping[str, Any], *, of: str = "") -> None:
    """Raise InfertoolError (exit code 1) naming the assertions that do not hold, with their figures."""
    failed = [f"{each['expression']!r} ({actual(each)})" for each in report["asserts"] if not each["passed"]]
    if failed:
        where = f" in {of}" if of else ""
        raise InfertoolError(f"--assert does not hold{where}: {'; '.join(failed)}")


def compared(names: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a comparison of runs as lines."""
    return _aligned(comparison_rows(names, reports))


def _aligned(rows: Rows) -> list[str]:
    shown = [[clean(cell) for cell in row] for row in rows]
    return sanitize.aligned(shown, rights=[False, *[True] * (len(rows[0]) - 1)])
