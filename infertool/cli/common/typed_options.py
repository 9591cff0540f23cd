"""Options as they were typed: those that would do nothing are refused.

Settings of a file, or of the environment, are not: several commands share them.
"""

from __future__ import annotations

import typer

from infertool.errors import UsageError


def is_typed(ctx: typer.Context, name: str) -> bool:
    """Return True if the option of the parameter `name` stands on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def spelling(name: str) -> str:
    """Return the option of the parameter `name`, as it is typed."""
    return f"--{name.rstrip('_').replace('_', '-')}"


def check_used(ctx: typer.Context, *options: tuple[str, bool, str]) -> None:
    """Raise `UsageError` for an option on the command line that does nothing in this run.

    Each of `options` is a parameter's name, whether it is used, and what would make it so. Places of the bus, such as
    `--phoenix`, are not among them: scripts name all of them for every command.
    """
    for name, is_used, advice in options:
        if not is_used and is_typed(ctx, name):
            raise UsageError(f"{spelling(name)} does nothing in this run", advice=f"{advice}, or leave it out")


def check_place(ctx: typer.Context) -> None:
    """Raise `UsageError` for an option before the name of a subcommand, which has options of its own."""
    for name in ctx.params:
        if is_typed(ctx, name):
            raise UsageError(
                f"{spelling(name)} does nothing before {ctx.invoked_subcommand}",
                advice=f"write what `{ctx.command_path} {ctx.invoked_subcommand} --help` shows, after the name",
            )
