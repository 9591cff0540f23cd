"""`infertool tail`: follow Phoenix topics."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

EXAMPLE = """Examples:

\b
  infertool tail public:results public:alerts
  infertool tail public:results --where "prediction.confidence < 0.8"
  infertool tail public:alerts --event inference_failed --count 10 -o jsonl | jq .payload.error
"""


class Output(StrEnum):
    """Form of the events."""

    pretty = "pretty"
    jsonl = "jsonl"
    raw = "raw"


def tail(
    ctx: typer.Context,
    topics: Annotated[list[str], typer.Argument(help="Topics to join, e.g. public:results.", metavar="TOPIC...")],
    phoenix: Annotated[str | None, typer.Option(help="Phoenix socket, ws:// or wss://.", metavar="URL")] = None,
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
) -> None:
    """Join topics and print their events until Ctrl-C.

    In --where, payload fields are at the top level, and payload, headers, topic and event are names:
    status == 'FAILED' && prediction.confidence < 0.5. A missing field is no match.

    Exit code 4 when --for ran out before an event matched (or before --count did).
    """
    from infertool import filters
    from infertool.cli.tailing import Tail, parse_params
    from infertool.units import parse_duration

    loaded = ctx.obj.load({
        "phoenix.url": ("--phoenix", phoenix),
        "phoenix.join_params": ("--join-params", None if join_params is None else parse_params(join_params)),
    })  # fmt: skip
    Tail(
        loaded.settings,
        topics,
        event=event,
        where=None if where is None else filters.compile(where),
        count=count,
        seconds=None if for_ is None else parse_duration(for_),
        form=output.value if output else None,
        quiet=ctx.obj.quiet,
    ).run()
