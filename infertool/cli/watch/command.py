"""`infertool watch`: the live view of a bus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infertool.cli.common.outputs import TextOrJson

EXAMPLE = """Examples:

\b
  infertool watch
  infertool watch --bus staging --bus production         two profiles; b changes between them
  infertool watch --stats-url http://localhost:9464      with the figures of a consumer --metrics 9464
  infertool watch --record incident.jsonl                record the events
  infertool watch --from incident.jsonl --speed 10       play them, ten times as fast
  infertool watch --once --for 30s -o json | jq .success
"""


def watch(
    ctx: typer.Context,
    topics: Annotated[
        list[str] | None,
        typer.Argument(help="Topics to join; by default those of results and alerts.", metavar="TOPIC"),
    ] = None,
    phoenix: Annotated[str | None, typer.Option(help="Phoenix socket, ws:// or wss://.", metavar="URL")] = None,
    bus: Annotated[
        list[str] | None, typer.Option(help="Watch the bus of this profile; repeatable.", metavar="PROFILE")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Play a record (JSON lines of tail or --record; - is stdin).", metavar="FILE"),
    ] = None,
    speed: Annotated[str, typer.Option(help="Pace of --from: 1, 10, 0.5, or max.", metavar="N")] = "1",
    record: Annotated[Path | None, typer.Option(help="Append the events as JSON lines.", metavar="FILE")] = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Results, and failures, kept each (10000).", metavar="N")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the view once instead of showing it.")] = False,
    for_: Annotated[
        str | None,
        typer.Option("--for", help="With --once: look for this long (5s; a record to its end).", metavar="DURATION"),
    ] = None,
    stats_url: Annotated[
        str | None,
        typer.Option(help="Show the figures and rules of the consumer with this --metrics address.", metavar="URL"),
    ] = None,
    output: Annotated[TextOrJson, typer.Option("--output", "-o", help="Form of --once.")] = TextOrJson.text,
) -> None:
    """Watch results, failures, rates and latencies live; ? shows the keys.

    It connects again by itself and marks what it missed. Where the broker answers, the depths of the queue and of the
    dead-letter queue show, too. With several --bus, --once prints a line or a block for each.
    """
    from infertool.channels.recording import parse_speed
    from infertool.cli.common.typed_options import check_used
    from infertool.cli.watch.run import Options, run
    from infertool.errors import UsageError
    from infertool.text.input import parse_duration

    flags = {"phoenix.url": ("--phoenix", phoenix), "watch.keep": ("--keep", keep)}
    options = Options(
        topics=tuple(topics or ()),
        buses=tuple(dict.fromkeys(bus or ())),
        recording=from_,
        speed=parse_speed(speed),
        record=None if record is None else str(record),
        once=once,
        seconds=None if for_ is None else parse_duration(for_, "--for"),
        as_json=output is TextOrJson.json,
        stats_url=stats_url or "",
    )
    is_live, is_several = from_ is None, len(options.buses) > 1
    check_used(
        ctx,
        ("speed", not is_live, "it is the pace of a record: add --from FILE"),
        ("phoenix", is_live, "--from plays a record: leave out --from"),
        ("phoenix", not is_several, "each --bus has its own: set phoenix.url in the profiles"),
        ("output", once, "it is the form of --once: add that"),
    )
    if ctx.obj.profile and options.buses:
        raise UsageError("--profile and --bus both name a profile", advice="name all with --bus")
    run(ctx.obj, flags, options)
