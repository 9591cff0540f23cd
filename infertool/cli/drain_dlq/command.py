"""`infertool drain-dlq`: archive dead letters and remove them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from infertool.cli.common.outputs import TableOrJson

EXAMPLE = """Examples:

\b
  infertool drain-dlq                                     into ./ai.events.dlq.jsonl, after asking
  infertool drain-dlq --to dead.jsonl.zst --yes           compressed (zstd; .gz for gzip), without asking
  infertool drain-dlq DLQ.orders --to orders.jsonl        another queue; run again, it appends
  infertool drain-dlq DLQ.orders --discard                throw away; asks for the queue's name
  infertool replay-dlq --from dead.jsonl.zst              send an archive back
"""


class Command(TyperCommand):
    """Accepts `--yes` and `--yes=QUEUE`: Typer has no options with an optional value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--yes` an empty value."""
        return super().parse_args(ctx, ["--yes=" if word == "--yes" else word for word in args])


def drain_dlq(
    ctx: typer.Context,
    queue: Annotated[
        str | None, typer.Argument(help="Queue; by default the configured dead-letter queue.", metavar="QUEUE")
    ] = None,
    broker: Annotated[str | None, typer.Option(help="Broker, e.g. stomp://a:61613,b:61613.", metavar="URL")] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Archive to append to; .gz and .zst compress. Default: ./QUEUE.jsonl", metavar="FILE"),
    ] = None,
    discard: Annotated[bool, typer.Option("--discard", help="Delete, without an archive.")] = False,
    yes: Annotated[
        str | None,
        typer.Option(help="Do not ask. With --discard the queue must be named: --yes=QUEUE.", metavar="[=QUEUE]"),
    ] = None,
    delete_records: Annotated[
        bool, typer.Option("--delete-records", help="Kafka: delete what is archived from the topic, for every group.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Run even if another run works on the queue.")] = False,
    output: Annotated[TableOrJson, typer.Option("--output", "-o", help="Form of the summary.")] = TableOrJson.table,
) -> None:
    """Archive all dead letters of a queue, then remove them. Letters that arrive meanwhile stay.

    Each message is on disk before it is removed from the broker. After an interruption, run it again: it appends, and
    recognises letters that were archived but not removed. Ctrl-C ends it after the current batch.
    """
    from infertool import brokers
    from infertool.cli.drain_dlq.run import Request, drain
    from infertool.errors import UsageError

    if discard and to:
        raise UsageError("--discard and --to cannot be used together")
    loaded = ctx.obj.load({"broker.url": ("--broker", broker)})
    conventions = brokers.conventions(loaded.settings.broker.url)
    name = conventions.queue(queue or loaded.settings.deadletter.queue)
    file = None if discard else to or Path(f"{conventions.short(name).replace('/', '_')}.jsonl")
    request = Request(
        name,
        file,
        yes=yes,
        delete_records=delete_records,
        force=force,
        as_json=output is TableOrJson.json,
        quiet=ctx.obj.quiet,
    )
    drain(loaded.settings, request)
