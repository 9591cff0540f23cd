"""The subcommands. Each is imported, and its options are built, when it is used: that takes most of a start."""

from __future__ import annotations

import inspect
from importlib import import_module
from types import ModuleType
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

# In the order of `--help`. `drain-dlq` is `infertool.cli.drain_dlq.command.drain_dlq`.
SINGLE: Final = (
    "consume", "call", "submit", "tail", "watch", "peek-dlq", "replay-dlq", "drain-dlq", "serve-model", "doctor", "dev",
    "demo",
)  # fmt: skip
# Those with subcommands of their own: `infertool.cli.config.command.app`.
GROUPS: Final = ("loadgen", "gateway", "alerts", "dashboards", "rabbitmq", "config")


class Commands(TyperGroup):
    """The group of all subcommands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # The names: the nearest one is suggested for an unknown one.
        names: dict[str, Any] = dict.fromkeys((*SINGLE, *GROUPS))
        self.commands = names

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  (typer's)
        """Return a subcommand with its options, or None."""
        if cmd_name in GROUPS:
            return typer.main.get_group(_module(cmd_name).app)
        return _single(cmd_name) if cmd_name in SINGLE else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the names and what each subcommand is for."""
        outlines: dict[str, Any] = {name: TyperCommand(name, help=_help(name)) for name in self.commands}
        TyperGroup(commands=outlines).format_commands(ctx, formatter)


def _module(name: str) -> ModuleType:
    return import_module(f"infertool.cli.{_identifier(name)}.command")


def _identifier(name: str) -> str:
    return name.replace("-", "_")


def _single(name: str) -> Any:
    module = _module(name)
    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    one.command(epilog=module.EXAMPLE, cls=getattr(module, "Command", None))(getattr(module, _identifier(name)))
    return typer.main.get_command(one)


def _help(name: str) -> str:
    module = _module(name)
    if name in SINGLE:
        return inspect.getdoc(getattr(module, _identifier(name))) or ""
    given = module.app.info.help
    return given if isinstance(given, str) else inspect.getdoc(module.app.registered_callback.callback) or ""
