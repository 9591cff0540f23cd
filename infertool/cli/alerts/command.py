"""`infertool alerts`: check alert rules, test them on series, export them to Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infertool.cli.common.outputs import TableOrJson

app = typer.Typer(
    help="Alert rules: check, test, export.",
    epilog="Example: infertool alerts check",
    no_args_is_help=True,
    rich_markup_mode=None,
)

CHECK_EXAMPLE = """Examples:

\b
  infertool alerts check                              the rules that apply, or the first error
  infertool --profile production alerts check
  infertool alerts check -o json | jq '.[].name'      for a program
"""
TEST_EXAMPLE = """Examples:

\b
  infertool alerts test rules.test.toml               series in, expected states out
  infertool alerts test tests/*.toml -o json          for a program
"""
EXPORT_EXAMPLE = """Examples:

\b
  infertool alerts export --prometheus > infertool.rules.yml
  promtool check rules infertool.rules.yml
"""
BACKTEST_EXAMPLE = """Examples:

\b
  infertool alerts backtest monday.jsonl              a file of watch --record or tail --record
  infertool alerts backtest run.jsonl -o json         a file of loadgen --save
"""
LIST_EXAMPLE = """Examples:

\b
  infertool alerts list --stats-url http://127.0.0.1:9464
  infertool alerts list --stats-url http://127.0.0.1:9464 -o json | jq '.[] | select(.state == "firing")'
"""
SILENCE_EXAMPLE = """Examples:

\b
  infertool alerts silence Backlog 2h --stats-url http://127.0.0.1:9464
  infertool alerts silence Backlog 0s --stats-url http://127.0.0.1:9464      end the silence
"""


_StatsUrl = Annotated[
    str, typer.Option(help="Address of the consumer's endpoint, telemetry.metrics.", metavar="URL", show_default=True)
]
_DEFAULT_URL = "http://127.0.0.1:9464"
_Output = Annotated[TableOrJson, typer.Option("--output", "-o", help="Form of the output.")]


@app.callback()
def alerts() -> None:
    """Alert rules: check, test, export."""


@app.command(epilog=CHECK_EXAMPLE)
def check(ctx: typer.Context, output: _Output = TableOrJson.table) -> None:
    """Check fields and types of all rules, and show the rules that apply."""
    from infertool.cli.alerts.run import check

    check(ctx.obj.load(), as_json=output is TableOrJson.json)


@app.command("test", epilog=TEST_EXAMPLE)
def run_tests(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Files of tests; see docs/alerts.md.", metavar="FILE")],
    output: _Output = TableOrJson.table,
) -> None:
    """Run tests of the rules: series of fields in, expected states out. Exit code 1: a state is another."""
    from infertool.cli.alerts.run import run_tests

    run_tests(ctx.obj.load(), files, as_json=output is TableOrJson.json)


@app.command(epilog=EXPORT_EXAMPLE)
def export(
    ctx: typer.Context,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="Alerting rules of Prometheus.")] = False,
) -> None:
    """Print the rules for another engine. Rules that it cannot say are named on standard error."""
    from infertool.cli.alerts.run import export
    from infertool.errors import UsageError

    if not prometheus:
        raise UsageError("the form of the export is missing", advice="add --prometheus")
    export(ctx.obj.load())


@app.command(epilog=BACKTEST_EXAMPLE)
def backtest(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="File of watch --record, tail --record or loadgen --save.", metavar="RECORD")
    ],
    output: _Output = TableOrJson.table,
) -> None:
    """Try the rules on a recorded run: which would have fired, and when."""
    from infertool.cli.alerts.run import backtest

    backtest(ctx.obj.load(), file, as_json=output is TableOrJson.json)


@app.command("list", epilog=LIST_EXAMPLE)
def list_(stats_url: _StatsUrl = _DEFAULT_URL, output: _Output = TableOrJson.table) -> None:
    """Show the states of the rules of a running consumer."""
    from infertool.cli.alerts.remote import list_rules

    list_rules(stats_url, as_json=output is TableOrJson.json)


@app.command(epilog=SILENCE_EXAMPLE)
def silence(
    rule: Annotated[str, typer.Argument(help="Name of the rule.", metavar="NAME")],
    duration: Annotated[str, typer.Argument(help="For how long, e.g. 30m or 2h; 0s ends it.", metavar="DURATION")],
    stats_url: _StatsUrl = _DEFAULT_URL,
    output: _Output = TableOrJson.table,
) -> None:
    """Let a rule of a running consumer tell nobody for a while. It goes on to be evaluated."""
    from infertool.cli.alerts.remote import silence

    silence(stats_url, rule, duration, as_json=output is TableOrJson.json)
