"""`infertool replay-dlq`: send dead letters back to where they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infertool.cli.common.outputs import TableOrJson

EXAMPLE = """Examples:

\b
  infertool replay-dlq                                      all of the configured queue, after asking
  infertool replay-dlq --stage infer --since 2h --rate 20/s what the model lost since then, slowly
  infertool replay-dlq --where "customer.tier == 'gold'" --dry-run
  infertool replay-dlq DLQ.orders --to orders --limit 10    ten of another queue, to see what happens
  infertool replay-dlq --error timeout --abort-on-refail 5 --audit replay.jsonl --yes
  infertool replay-dlq --to-broker rabbit --dry-run         to the broker of a profile; shows what that cannot carry
"""


def replay_dlq(
    ctx: typer.Context,
    queue: Annotated[
        str | None,
        typer.Argument(
            help="Queue; by default the configured dead-letter queue. With --from: only what was archived of it.",
            metavar="QUEUE",
        ),
    ] = None,
    broker: Annotated[str | None, typer.Option(help="Broker, e.g. stomp://a:61613,b:61613.", metavar="URL")] = None,
    to: Annotated[str | None, typer.Option(help="Send to this queue, not where they came from.", metavar="Q")] = None,
    where: Annotated[
        str | None, typer.Option(help="Only letters for which this CEL expression is true.", metavar="EXPR")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Only letters of this stage: decode, infer, ...")] = None,
    error: Annotated[
        str | None,
        typer.Option(help='Only letters whose "TYPE: TEXT" matches (regular expression).', metavar="PATTERN"),
    ] = None,
    since: Annotated[str | None, typer.Option(help="Only what died since: 2h, or an ISO time.", metavar="T")] = None,
    until: Annotated[str | None, typer.Option(help="Only what died before: 10m, or an ISO time.", metavar="T")] = None,
    id_: Annotated[
        list[str] | None, typer.Option("--id", help="Only this message, event or request id; repeatable.", metavar="ID")
    ] = None,
    selector: Annotated[
        str | None, typer.Option(help="JMS selector for the broker; it looks no deeper than its window.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Replay N letters at most.", metavar="N")] = None,
    rate: Annotated[
        str | None, typer.Option(help="Maximum letters a second; starts with a tenth of it.", metavar="N/s")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=100, help="Letters a transaction.", metavar="N")] = 100,
    copy: Annotated[bool, typer.Option("--copy", help="Leave the originals in the queue.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change the payload: path=JSON; repeatable.", metavar="PATH=VALUE")
    ] = None,
    edit: Annotated[
        str | None, typer.Option(help="Change the payload by a function: script.py:function.", metavar="SPEC")
    ] = None,
    max_replays: Annotated[int, typer.Option(min=0, help="A letter that was replayed N times stays.", metavar="N")] = 3,
    parking: Annotated[str | None, typer.Option(help="... or goes to this queue instead.", metavar="Q")] = None,
    to_broker: Annotated[
        str | None,
        typer.Option(help="Send to another broker, at least once: a URL, or a profile's name.", metavar="URL|NAME"),
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Send the letters of an archive of drain-dlq.", metavar="FILE")
    ] = None,
    abort_on_refail: Annotated[
        int | None, typer.Option(min=1, help="Stop when N replayed events have failed again.", metavar="N")
    ] = None,
    audit: Annotated[
        Path | None, typer.Option(help="Append each decision as a JSON line, before it is done.", metavar="FILE")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Run even if another run works on the queue.")] = False,
    output: Annotated[TableOrJson, typer.Option("--output", "-o", help="Form of the summary.")] = TableOrJson.table,
) -> None:
    """Move matching dead letters to where they came from, in broker transactions: none is lost, none doubled.

    Shows what it would do, asks, and handles the letters that were there when it began. Letters that are left out wait
    in QUEUE.scan meanwhile and are put back, after a crash by the next run. Ctrl-C ends after the current transaction.

    In --where, payload fields are at the top level, and headers["name"] is a header; a missing field is no match.
    Over STOMP a replay loses JMSXGroupID and the types of JMS properties. With --to-broker, queues are spelt in the
    other broker's way, and what it cannot carry is listed before it is done.

    Exit code 4 when the queue is empty or nothing matched.
    """
    from infertool import brokers
    from infertool.cli.replay_dlq.run import Options, run
    from infertool.cli.replay_dlq.target import target

    loaded = ctx.obj.load({"broker.url": ("--broker", broker)})
    here = brokers.conventions(loaded.settings.broker.url)
    other = None if to_broker is None else target(loaded.settings, to_broker, ctx.obj.config)
    there = here if other is None else brokers.conventions(other.url)
    options = Options(
        queue=here.queue(queue or loaded.settings.deadletter.queue),
        to=None if to is None else there.queue(to),
        where=where,
        stage=stage,
        error=error,
        since=since,
        until=until,
        ids=tuple(id_ or ()),
        selector=selector,
        limit=limit,
        rate=rate,
        batch=batch,
        copy=copy,
        assignments=tuple(set_ or ()),
        edit=edit,
        max_replays=max_replays,
        # Letters of a queue are parked beside it, those of an archive on the broker that gets them.
        parking=None if parking is None else (here if from_ is None else there).queue(parking),
        to_broker=other,
        abort_on_refail=abort_on_refail,
        audit=audit,
        dry_run=dry_run,
        yes=yes,
        force=force,
        as_json=output is TableOrJson.json,
        quiet=ctx.obj.quiet,
    )
    if from_ is None:
        run(loaded.settings, options)
    else:
        from infertool.cli.replay_dlq import restore

        restore.run(loaded.settings, options, from_, only=None if queue is None else options.queue)
