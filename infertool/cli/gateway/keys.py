"""`infertool gateway keys`: add, list, revoke and rotate API keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from infertool.cli.common.outputs import TextOrJson

app = typer.Typer(
    help="API keys of the gateway: add, list, revoke, rotate.",
    epilog="Example: infertool gateway keys add reports --class batch --rate 10/s",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ADD_EXAMPLE = """Examples:

\b
  infertool gateway keys add dashboard                           may use all models and classes
  infertool gateway keys add reports --class batch --model fraud --rate 600/m --expires 90d
  infertool gateway keys add billing --certificate billing.example.com      rights of a client certificate
  infertool gateway keys add ci --keys-file keys.json -o json | jq -r .key   for a program
"""
LIST_EXAMPLE = """Examples:

\b
  infertool gateway keys list
  infertool gateway keys list -o json | jq -r '.keys[] | select(.state == "active").name'
"""
REVOKE_EXAMPLE = """Examples:

\b
  infertool gateway keys revoke reports        all keys of this name
  infertool gateway keys revoke k3v7x2a5mq     one key, by its id
"""
ROTATE_EXAMPLE = """Examples:

\b
  infertool gateway keys rotate reports                 the old key works for another 24 hours
  infertool gateway keys rotate reports --grace 0s      the old key ends now
"""


_KeysFile = Annotated[
    Path | None, typer.Option(help="File of keys. Default: gateway.keys_file.", metavar="FILE", show_default=False)
]
_Output = Annotated[TextOrJson, typer.Option("--output", "-o", help="Form of the output.")]


@app.callback()
def keys() -> None:
    """Add, list, revoke and rotate API keys of the gateway."""


@app.command(epilog=ADD_EXAMPLE)
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the client: its limits and requests.", metavar="NAME")],
    model: Annotated[
        list[str] | None, typer.Option(help="A model it may use; repeatable. Default: all.", metavar="NAME")
    ] = None,
    class_: Annotated[
        list[str] | None, typer.Option("--class", help="A class it may use; repeatable. Default: all.", metavar="NAME")
    ] = None,
    rate: Annotated[
        str, typer.Option(help="Limit such as 100/s, 600/m, 100/s:20. Default: gateway.rate.", metavar="RATE")
    ] = "",
    max_in_flight: Annotated[
        int | None,
        typer.Option(min=1, help="Limit of unfinished requests. Default: gateway.max_in_flight.", metavar="N"),
    ] = None,
    max_bytes_in_flight: Annotated[
        int | None,
        typer.Option(min=1, help="Limit of their bodies. Default: gateway.max_bytes_in_flight.", metavar="BYTES"),
    ] = None,
    expires: Annotated[
        str, typer.Option(help="End of the key: 90d, 12h, or a date such as 2027-06-30 (UTC).", metavar="WHEN")
    ] = "",
    certificate: Annotated[
        str, typer.Option(help="Give rights to client certificates of this name, instead of a key.", metavar="NAME")
    ] = "",
    keys_file: _KeysFile = None,
    output: _Output = TextOrJson.text,
) -> None:
    """Make a key and print it. It is shown only this once: the file keeps a salted hash of it.

    A running gateway takes it at once. Exit code 1: there is an active key of that name.
    """
    from infertool.cli.gateway import keys_run

    rights = keys_run.Rights(
        models=tuple(model) if model else None,
        classes=tuple(class_) if class_ else None,
        rate=rate,
        max_in_flight=max_in_flight,
        max_bytes_in_flight=max_bytes_in_flight,
        expires=expires,
        certificate=certificate,
    )
    keys_run.add(_path(ctx, keys_file), name, rights, as_json=output is TextOrJson.json)


@app.command("list", epilog=LIST_EXAMPLE)
def list_keys(ctx: typer.Context, keys_file: _KeysFile = None, output: _Output = TextOrJson.text) -> None:
    """Show the keys: names, rights, limits and states, never the keys themselves."""
    from infertool.cli.gateway import keys_run

    keys_run.show(_path(ctx, keys_file), as_json=output is TextOrJson.json)


@app.command(epilog=REVOKE_EXAMPLE)
def revoke(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="Id of a key, or name of a client.", metavar="ID | NAME")],
    keys_file: _KeysFile = None,
    output: _Output = TextOrJson.text,
) -> None:
    """End a key now, or all keys of a name. A running gateway refuses it within a second.

    Exit code 4: there is no such key that is not revoked yet.
    """
    from infertool.cli.gateway import keys_run

    keys_run.revoke(_path(ctx, keys_file), key, as_json=output is TextOrJson.json)


@app.command(epilog=ROTATE_EXAMPLE)
def rotate(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the client.", metavar="NAME")],
    grace: Annotated[str, typer.Option(help="Time that the old key still works.", metavar="DURATION")] = "24h",
    keys_file: _KeysFile = None,
    output: _Output = TextOrJson.text,
) -> None:
    """Make a new key with the name, rights and limits of the old one, and print it. The old one ends after --grace.

    Both are the same client: limits count them together. Exit code 4: there is no active key of that name.
    """
    from infertool.cli.gateway import keys_run
    from infertool.text.input import parse_duration

    keys_run.rotate(
        _path(ctx, keys_file), name, grace_s=parse_duration(grace, "--grace"), as_json=output is TextOrJson.json
    )


def _path(ctx: typer.Context, given: Path | None) -> Path:
    """Return the file of keys. Raises `UsageError` if none is named."""
    from infertool.errors import UsageError
    from infertool.text.input import home_path

    flags: dict[str, tuple[str, Any]] = {"gateway.keys_file": ("--keys-file", None if given is None else str(given))}
    found: str = ctx.obj.load(flags).settings.gateway.keys_file
    if not found:
        raise UsageError("no file of keys is named", advice="set gateway.keys_file, or give --keys-file FILE")
    return home_path(found)
