"""The `infertool` command: global options and the handling of errors."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from infertool import __version__, hangup
from infertool.cli.common import console
from infertool.cli.subcommands import Commands
from infertool.errors import InfertoolError, UsageError
from infertool.telemetry import uncaught


class QuietCommands(Commands):
    """The subcommands. Each ends quietly when the reader of stdout is gone (`| head`); Typer would exit with 1."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Parse the global options; --help and --version write here."""
        try:
            return super().make_context(*args, **options)
        except BrokenPipeError:
            console.leave_quietly()

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            console.leave_quietly()


app = typer.Typer(
    name="infertool",
    cls=QuietCommands,
    help="Operate an inference bus: events from a broker, through a model, to Phoenix Channels or back to the caller.",
    epilog="Start with: infertool demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would double the time of --help
)

# The base class of usage errors, also in newer versions of Typer, which contain their own copy of click.
PARSER_ERROR: Any = typer.BadParameter.__mro__[2]

GLOBAL_FLAGS = {"--debug", "--quiet", "--version"}
GLOBAL_OPTIONS = {"--config", "--profile", "--log-format"}


def _version(value: bool) -> None:
    if value:
        console.out(f"infertool {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Settings file.", metavar="FILE")] = None,
    profile: Annotated[str | None, typer.Option(help="Profile of the settings file.", metavar="NAME")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Log everything; show traces of errors.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only warnings, errors and data.")] = False,
    log_format: Annotated[str | None, typer.Option(help="text or json.", metavar="FORMAT")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Store the global options for the subcommand."""
    if log_format not in {None, "text", "json"}:
        raise UsageError(f"--log-format {log_format!r} is no format", advice="write text or json")
    ctx.obj = console.Globals(config=config, profile=profile, debug=debug, quiet=quiet, log_format=log_format)


def globals_first(arguments: list[str]) -> list[str]:
    """Return `arguments` with the global options moved to the front: they may be given anywhere.

    Raises `UsageError` for one without its value.
    """
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in GLOBAL_FLAGS or ("=" in word and word.partition("=")[0] in GLOBAL_OPTIONS):
            front.append(word)
        elif word in GLOBAL_OPTIONS:
            value = next(words, None)
            if value is None:
                raise UsageError(f"{word} needs a value", advice="see infertool --help")
            front += [word, value]
        else:
            rest.append(word)
    return front + rest


def refuse_empty(arguments: list[str]) -> None:
    """Raise `UsageError` for an empty argument: an unset variable must not mean a default."""
    for before, word in pairwise(["infertool", *arguments]):
        option, equals, value = word.partition("=")
        if word and not (option.startswith("-") and equals and not value):
            continue
        what = f"the argument after {before} is empty" if not word else f"{option} is empty"
        raise UsageError(what, advice="is a variable unset? For the default, leave it out")


def run() -> None:
    """Run the command line: the entry point of the console script."""
    arguments = sys.argv[1:]
    console.prepare_streams()
    hangup.shield_stderr()
    sys.excepthook = uncaught.say_trace
    as_json = _wants_json(arguments)
    if as_json:
        console.use_json()
    try:
        refuse_empty(arguments)
        _call(globals_first(arguments), as_json=as_json)
    except InfertoolError as error:
        console.fail(error, debug="--debug" in arguments)
    except PARSER_ERROR as error:
        console.fail(UsageError(error.format_message()), debug=False)


def _call(arguments: list[str], *, as_json: bool) -> None:
    try:
        # Outside its standalone mode the parser raises usage errors instead of printing them as text.
        sys.exit(app(arguments, prog_name="infertool", standalone_mode=not as_json))
    except SystemExit:
        console.finish()
        raise
    except OSError:
        console.out("")  # raises `OutputError` if the parser failed to write the help
        raise


def _wants_json(arguments: list[str]) -> bool:
    """Return True if the command line or the environment selects JSON logs. The settings file is read later."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    flags = [value for name, value in pairwise(words) if name == "--log-format"]
    return (flags or [os.environ.get("INFERTOOL_TELEMETRY__LOG_FORMAT", "")])[-1] == "json"
