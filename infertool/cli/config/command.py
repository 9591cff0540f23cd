"""`infertool config`: show the settings, their origins and files; write a settings file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infertool.cli.common import console

if TYPE_CHECKING:
    from infertool.settings.display import Row


app = typer.Typer(
    help="Show where settings come from; write a settings file.",
    epilog="Example: infertool config init, then infertool config show",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Output(StrEnum):
    """Output format of `config show`."""

    TABLE = "table"
    JSON = "json"
    TOML = "toml"


@app.command(epilog="Example: infertool --profile production config show -o json")
def show(
    ctx: typer.Context,
    output: Annotated[Output, typer.Option("-o", "--output", help="How to print.")] = Output.TABLE,
) -> None:
    """Print every value and where it came from; secrets are masked."""
    from infertool.settings.display import as_toml, rows

    loaded = ctx.obj.load({})
    match output:
        case Output.TABLE:
            _print_table(rows(loaded))
        case Output.JSON:
            console.emit_json({row.key: {"value": row.value, "origin": row.origin} for row in rows(loaded)})
        case Output.TOML:
            console.out_data(*as_toml(loaded).split("\n"))


@app.command(epilog="Example: infertool config init ~/.config/infertool/infertool.toml")
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("infertool.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a settings file with every key, its default and its meaning."""
    from infertool.errors import UsageError
    from infertool.settings.display import init_text

    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(init_text())
    except FileExistsError:
        raise UsageError(f"{path} is there already", advice="add --force to overwrite it") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    console.err(f"wrote {path}; every key in it is commented out")


@app.command(epilog="Example: infertool config path")
def path(ctx: typer.Context) -> None:
    """Print which settings files were looked for, and which one is used."""
    import os

    from infertool.settings.load import config_candidates, find

    config: Path | None = ctx.obj.config
    used = find(config, os.environ)
    for candidate in (config,) if config else config_candidates(os.environ):
        console.out_data(
            f"{candidate}\t{'used' if candidate == used else 'not used' if candidate.is_file() else 'not there'}"
        )


def _print_table(shown: list[Row]) -> None:
    lines = [(row.key, _cell(row.value), row.origin) for row in shown]
    if console.on_terminal():
        _print_rich(lines)
        return
    from infertool.text import sanitize
    from infertool.text.sanitize import clean

    console.out(*sanitize.aligned([[clean(cell) for cell in line] for line in lines]))


def _print_rich(lines: list[tuple[str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from infertool.text.sanitize import clean

    table = Table("setting", "value", "from", box=None, header_style="bold")
    for key, value, origin in lines:
        table.add_row(key, Text(clean(value)), Text(clean(origin), style="dim" if origin == "default" else ""))
    Console().print(table)


def _cell(value: object) -> str:
    from infertool.settings.load import dump

    return dump(value)
