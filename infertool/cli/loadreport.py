"""`infertool loadgen report`: what saved runs say, alone or side by side."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """Examples:

\b
  infertool loadgen report run.jsonl                          the summary of a saved run
  infertool loadgen report before.jsonl after.jsonl           two runs side by side
  infertool loadgen report run.jsonl --html run.html          a page with plots
  infertool loadgen report run.jsonl --assert 'e2e.p99_ms < 500' --assert 'lost == 0'
  infertool loadgen report run.jsonl -o json | jq .e2e        for a program
"""


class Output(StrEnum):
    """Form of the report."""

    table = "table"
    json = "json"


def report(
    files: Annotated[list[Path], typer.Argument(help="Files written by --save.", metavar="FILE")],
    html: Annotated[Path | None, typer.Option(help="Write a page with plots.", metavar="FILE")] = None,
    png: Annotated[
        Path | None, typer.Option(help="Write the plots as a picture; needs infertool[plots].", metavar="FILE")
    ] = None,
    asserts: Annotated[
        list[str] | None,
        typer.Option("--assert", help="Must hold for every run, in CEL, e.g. 'lost == 0'.", metavar="EXPRESSION"),
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="Form of the output.")] = Output.table,
) -> None:
    """Print what saved runs say. Several are put side by side, each against the first.

    Exit code 1 when an --assert does not hold. A file cut short is reported up to its last second, and says so.
    """
    from infertool.cli.apart import check_apart
    from infertool.cli.loadreporting import Reporting

    runs = [("a saved run", file) for file in files]
    check_apart("--html", html, *runs, ("--png", png))
    check_apart("--png", png, *runs)
    Reporting(files, expressions=asserts or ()).run(form=output.value, html=html, png=png)
