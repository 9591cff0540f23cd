"""`infertool gateway webhooks`: what became of the webhooks of a gateway on this machine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from infertool.cli.common.outputs import TextOrJson

EXAMPLE = """Examples:

\b
  infertool gateway webhooks                            those that wait for their next attempt
  infertool gateway webhooks --state given_up           those whose results can only be polled
  infertool gateway webhooks --state all -o json | jq -r '.webhooks[] | select(.attempts > 3).id'
"""


class Shown(StrEnum):
    """Which webhooks are shown."""

    waiting = "waiting"
    delivered = "delivered"
    given_up = "given_up"
    all = "all"


def webhooks(
    ctx: typer.Context,
    state: Annotated[Shown, typer.Option(help="Show only those.")] = Shown.waiting,
    limit: Annotated[int, typer.Option(min=1, help="Show at most N, the newest first.", metavar="N")] = 100,
    state_dir: Annotated[
        str | None, typer.Option(help="Folder of the gateway. Default: gateway.state_dir.", metavar="FOLDER")
    ] = None,
    output: Annotated[TextOrJson, typer.Option("--output", "-o", help="Form of the output.")] = TextOrJson.text,
) -> None:
    """Show webhooks: attempts, the last error, the next attempt. Of URLs only the host: a path may be secret.

    The gateway may be running. Exit code 4: there are none of that state.
    """
    from infertool.cli.gateway.webhooks_run import show

    loaded = ctx.obj.load({"gateway.state_dir": ("--state-dir", state_dir)})
    show(loaded.settings.gateway, None if state is Shown.all else state.value, limit, as_json=output is TextOrJson.json)
