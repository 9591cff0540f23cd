"""One run of `infertool loadgen report`: read saved runs, check the assertions, print, write pages and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infertool.cli.common import console
from infertool.cli.loadgen.view import check, compared, summary
from infertool.errors import InfertoolError, UsageError
from infertool.load import assertions, record
from infertool.load.plot.charts import MOST_RUNS, NamedRun
from infertool.load.report import comparison_document, document
from infertool.text.sanitize import clean


class ReportRun:
    """One run of `infertool loadgen report`. Raises UsageError for a file or an expression that cannot be used."""

    def __init__(self, files: Sequence[Path], *, expressions: Sequence[str]) -> None:
        if len(files) > MOST_RUNS:
            raise UsageError(
                f"{len(files)} files are too many to read side by side", advice=f"give {MOST_RUNS} at most"
            )
        wanted = assertions.parse(expressions)
        runs = [record.read(path) for path in files]
        self._shown = [NamedRun(name, run, document(run)) for name, run in zip(_names(files), runs, strict=True)]
        for each in self._shown:
            assertions.judge(wanted, each.report)

    def run(self, *, form: str, html: Path | None, png: Path | None) -> None:
        """Print the report, and write the page and the picture. Raises InfertoolError if an assertion fails."""
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
            console.emit_json(reports[0] if len(reports) == 1 else comparison_document(names, reports))
            return
        for name, report in zip(names, reports, strict=True):
            console.out(*summary(report, name), "")
        if len(reports) > 1:
            console.out(*compared(names, reports))


def _names(files: Sequence[Path]) -> list[str]:
    """Return the names of the files, with their folders if two names are equal."""
    names = [clean(path.name) for path in files]
    return names if len(set(names)) == len(names) else [clean(str(path)) for path in files]


def _write(path: Path, data: bytes) -> None:
    try:
        file = path.open("wb")
    except OSError as fault:
        raise UsageError(f"{path} cannot be written: {fault.strerror}") from None
    try:
        with file:
            file.write(data)
    except OSError as fault:
        raise InfertoolError(f"{path} cannot be written: {fault.strerror}") from None
    console.err(f"wrote {path}")
