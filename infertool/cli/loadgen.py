"""`infertool loadgen`: load on the bus, and what it did to it."""

from __future__ import annotations

import typer

from infertool.cli import loadreport

app = typer.Typer(
    help="Load on the bus, and reports of it.",
    epilog="Example: infertool loadgen report run.jsonl",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command(epilog=loadreport.EXAMPLE)(loadreport.report)
