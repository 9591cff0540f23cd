"""The work of `loadgen report`: read, judge, print, draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import typer

from infertool.cli.common import console
from infertool.cli.common.signals import stopped_by_signals
from infertool.cli.loadgen.view import View, check, compared, summary
from infertool.errors import InfertoolError, UsageError
from infertool.load import assertions
from infertool.load import record as runfile
from infertool.load import report as comparison
from infertool.load.options import LoadOptions
from infertool.load.plot.charts import MOST_RUNS, Shown
from infertool.load.record import RunWriter
from infertool.load.report import document
from infertool.load.run import Listeners, LoadRun
from infertool.settings import Settings
from infertool.text.sanitize import clean

# What is said elsewhere in the report, or may hold a password.
_NOT_TOLD = {"broker", "phoenix", "queue", "output", "save", "asserts"}


def given(ctx: typer.Context) -> dict[str, str]:
    """Return the options that were given, by name; no URL, which may hold a password."""
    return {
        f"--{name.rstrip('_').replace('_', '-')}": ", ".join(value) if isinstance(value, list) else str(value)
        for name, value in ctx.params.items()
        if name not in _NOT_TOLD and (source := ctx.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }


def run(
    settings: Settings,
    options: LoadOptions,
    given: Mapping[str, str],
    *,
    save: Path | None,
    expressions: Sequence[str],
    as_json: bool,
    quiet: bool,
) -> None:
    """Run to the end and report. Raises InfertoolError, also when an assertion does not hold."""
    view = View(options, quiet=quiet)
    listeners = Listeners(on_second=view.second, on_connection=view.link, on_death=view.death)
    load = LoadRun(settings, options, listeners, given)
    wanted = assertions.parse(expressions, options.measures)
    with ExitStack() as stack:
        # From here on a signal ends in good order, also one that comes while connecting.
        stack.enter_context(stopped_by_signals(load.stop, view.stopping))
        writer = stack.enter_context(RunWriter(save, load.info)) if save else None
        with view.shown(load.tally, load.info):
            finished = load.run(writer)
    report = document(finished)
    assertions.judge(wanted, report)
    where = f"; {save} holds the run" if save else ""
    with console.reporting(f"{finished.counts.sent} events sent{where}"):
        if as_json:
            console.emit_json(report)
        else:
            console.out(*summary(report))
    if load.fault:
        raise load.fault
    if not finished.counts.sent and finished.counts.planned:
        raise InfertoolError(f"none of {finished.counts.planned} planned events was sent", advice="see the notes above")
    check(report)


class Reporting:
    """Saved runs and what must hold for each. Raises UsageError for a file or an expression that cannot be used."""

    def __init__(self, files: Sequence[Path], *, expressions: Sequence[str]) -> None:
        if len(files) > MOST_RUNS:
            raise UsageError(
                f"{len(files)} files are too many to read side by side", advice=f"give {MOST_RUNS} at most"
            )
        wanted = assertions.parse(expressions)
        runs = [runfile.read(path) for path in files]
        self._shown = [Shown(name, run, document(run)) for name, run in zip(_names(files), runs, strict=True)]
        for each in self._shown:
            assertions.judge(wanted, each.report)

    def run(self, *, form: str, html: Path | None, png: Path | None) -> None:
        """Write what was asked for. Raises InfertoolError when an assertion does not hold."""
        if html:
            from infertool.load.plot import page

            _write(html, page.html(self._shown).encode())
        if png:
            from infertool.load.plot import picture

            _write(png, picture.png(self._shown))
        self._print(form)
        for each in self._shown:
            check(each.report, of=each.name if len(self._shown) > 1 else "")

    def _print(self, form: str) -> None:
        names = [each.name for each in self._shown]
        reports = [each.report for each in self._shown]
        if form == "json":
            console.emit_json(reports[0] if len(reports) == 1 else comparison.comparison_document(names, reports))
            return
        for name, report in zip(names, reports, strict=True):
            console.out(*summary(report, name), "")
        if len(reports) > 1:
            console.out(*compared(names, reports))


def _names(files: Sequence[Path]) -> list[str]:
    """Return the files' names, with their folders where two have the same."""
    names = [clean(path.name) for path in files]
    return names if len(set(names)) == len(names) else [clean(str(path)) for path in files]


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as fault:
        raise UsageError(f"{path} cannot be written: {fault.strerror}") from None
    console.err(f"wrote {path}")
