"""`infertool peek-dlq`: look at dead letters."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

EXAMPLE = """Examples:

\b
  infertool peek-dlq                                      what is in the configured dead-letter queue
  infertool peek-dlq --group-by stage,error_type          why, how many, since when
  infertool peek-dlq --id ID:host-1234-5:1:1:1            one of them in full
  infertool peek-dlq DLQ.orders -o jsonl | jq .headers    another queue, for a program
  infertool peek-dlq --group-by origin,replay_count       which come back after a replay
"""


class Output(StrEnum):
    """Output format of the letters."""

    table = "table"
    json = "json"
    jsonl = "jsonl"


def peek_dlq(
    ctx: typer.Context,
    queue: Annotated[
        str | None, typer.Argument(help="Queue; by default the configured dead-letter queue.", metavar="QUEUE")
    ] = None,
    broker: Annotated[str | None, typer.Option(help="Broker, e.g. stomp://a:61613,b:61613.", metavar="URL")] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Count by fields, e.g. stage,error_type.", metavar="FIELDS")
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Show this one in full: a message, event or request id.", metavar="ID")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Look at the first N at most.", metavar="N")] = 1000,
    force: Annotated[
        bool, typer.Option("--force", help="RabbitMQ: look at a quorum queue that limits deliveries; looks count.")
    ] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="Form of the output.")] = Output.table,
) -> None:
    """Show the letters of a dead-letter queue, their errors and times. Changes nothing.

    A default ActiveMQ shows the first 400 messages only; a note says if there are more. RabbitMQ marks what was looked
    at as redelivered.
    """
    from infertool import brokers
    from infertool.deadletters.selection import parse_fields
    from infertool.errors import UsageError

    if group_by and id_:
        raise UsageError("--group-by and --id cannot be used together")
    fields = parse_fields(group_by) if group_by else None
    loaded = ctx.obj.load(
        {
            "broker.url": ("--broker", broker),
            "broker.counted_browse": ("--force", True if force else None),
        }
    )
    name = brokers.conventions(loaded.settings.broker.url).queue(queue or loaded.settings.deadletter.queue)

    from infertool.cli.peek_dlq.run import Peek

    Peek(loaded.settings, name, form=output.value, limit=limit).run(fields=fields, wanted=id_)
