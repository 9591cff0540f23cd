"""`infertool tail`: print the events of Phoenix topics."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

EXAMPLE = """Examples:

\b
  infertool tail public:results public:alerts
  infertool tail public:results --where "prediction.confidence < 0.8"
  infertool tail public:alerts --event inference_failed --count 10 -o jsonl | jq .payload.error
  infertool tail public:results --format '{request_id} {prediction.class} {prediction.confidence:.2f}'
  infertool tail public:results --fields request_id,prediction.class,original_payload.features[0]
  infertool tail public:results public:alerts --record night.jsonl --stats 5s > /dev/null
  infertool tail public:results --since-file night.jsonl --record night.jsonl
  infertool tail public:results --phoenix ws://a:4000/socket/websocket --phoenix ws://b:4000/socket/websocket
"""


class Output(StrEnum):
    """Output format of the events."""

    pretty = "pretty"
    jsonl = "jsonl"
    raw = "raw"


def tail(
    ctx: typer.Context,
    topics: Annotated[list[str], typer.Argument(help="Topics to join, e.g. public:results.", metavar="TOPIC...")],
    phoenix: Annotated[
        list[str] | None, typer.Option(help="Phoenix socket, ws:// or wss://. Repeat it for several.", metavar="URL")
    ] = None,
    event: Annotated[str | None, typer.Option(help="Only events of this name.", metavar="E")] = None,
    where: Annotated[
        str | None, typer.Option(help="Only events for which this CEL expression is true.", metavar="EXPR")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after N events.", metavar="N")] = None,
    for_: Annotated[
        str | None, typer.Option("--for", help="End after this time, e.g. 10s.", metavar="DURATION")
    ] = None,
    join_params: Annotated[str | None, typer.Option(help="JSON object sent with each join.", metavar="JSON")] = None,
    output: Annotated[
        Output | None,
        typer.Option(
            "--output",
            "-o",
            help="pretty: a line for people (default on a terminal); jsonl: a JSON object a "
            "line (default elsewhere); raw: the payload alone.",
        ),
    ] = None,
    fields: Annotated[
        str | None,
        typer.Option(help="Only these fields: columns, or an object with -o jsonl. A missing one is - or null.",
                     metavar="A,B.C,D[0]"),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="A line by this template of fields; a missing one is -.", metavar="TEMPLATE"),
    ] = None,
    since_file: Annotated[
        str | None,
        typer.Option(help="Print this record (of --record or -o jsonl; - is stdin) first, then go on live without "
                     "the events in it.", metavar="FILE"),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(help="Append all events to this file, also those that --event and --where hide.", metavar="FILE"),
    ] = None,
    stats: Annotated[
        str | None,
        typer.Option(help="At this interval print counts and times of the matching events to stderr.",
                     metavar="DURATION"),
    ] = None,
) -> None:  # fmt: skip
    """Join topics and print their events until Ctrl-C.

    In --where, payload fields are at the top level, and payload, headers, topic and event are names:
    status == 'FAILED' && prediction.confidence < 0.5. A missing field is no match. In --fields and --format,
    payload, topic, event, at and source (which server) are names beside the payload's fields.

    With several servers, the loss of one does not stop the others.

    Exit code 4 when --for ran out before an event matched (or before --count did).
    """
    from infertool.cli.common.options import parse_json
    from infertool.cli.tail.run import Options, Tail, parse_interval
    from infertool.cli.tail.view import form_of
    from infertool.filters import expression
    from infertool.text.input import parse_duration

    params = None if join_params is None else parse_json(join_params)
    urls: list[str | None] = [*dict.fromkeys(phoenix or [])] or [None]
    settings = [
        ctx.obj.load({"phoenix.url": ("--phoenix", url), "phoenix.join_params": ("--join-params", params)})
        for url in urls
    ]
    options = Options(
        topics=topics,
        form=form_of(output.value if output else None, fields=fields, template=format_, several=len(urls) > 1),
        event=event,
        where=None if where is None else expression.compile(where),
        count=count,
        for_s=None if for_ is None else parse_duration(for_, "--for"),
        since_file=since_file,
        record=record,
        stats_s=None if stats is None else parse_interval(stats),
        quiet=ctx.obj.quiet,
    )
    Tail([loaded.settings.phoenix for loaded in settings], options).run()
