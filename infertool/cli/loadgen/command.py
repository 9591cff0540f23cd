"""`infertool loadgen` and `infertool loadgen report`: send load, and report on runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from infertool.cli.common.outputs import TableOrJson

REPORT_EXAMPLE = """Examples:

\b
  infertool loadgen report run.jsonl                          the summary of a saved run
  infertool loadgen report before.jsonl after.jsonl           two runs side by side
  infertool loadgen report run.jsonl --html run.html          a page with plots
  infertool loadgen report run.jsonl --assert 'e2e.p99_ms < 500' --assert 'lost == 0'
  infertool loadgen report run.jsonl -o json | jq .e2e        for a program
"""


def report(
    files: Annotated[list[Path], typer.Argument(help="Files written by --save.", metavar="FILE")],
    html: Annotated[Path | None, typer.Option(help="Write a page with plots.", metavar="FILE")] = None,
    png: Annotated[
        Path | None, typer.Option(help="Write the plots as a picture; needs infertool[plots].", metavar="FILE")
    ] = None,
    asserts: Annotated[
        list[str] | None,
        typer.Option(
            "--assert", help="CEL expression that must hold for every run, e.g. 'lost == 0'.", metavar="EXPRESSION"
        ),
    ] = None,
    output: Annotated[TableOrJson, typer.Option("--output", "-o", help="Form of the output.")] = TableOrJson.table,
) -> None:
    """Print the reports of saved runs. Several are compared side by side, each with the first.

    Exit code 1 when an --assert does not hold. A file cut short is reported up to its last second, with a note.
    """
    from infertool.cli.common.options import check_apart
    from infertool.cli.loadgen.report import ReportRun

    runs = [("a saved run", file) for file in files]
    check_apart("--html", html, *runs, ("--png", png))
    check_apart("--png", png, *runs)
    ReportRun(files, expressions=asserts or ()).run(form=output.value, html=html, png=png)


EXAMPLE = """Examples:

\b
  infertool loadgen --qps 500                                     until Ctrl-C, the built-in event
  infertool loadgen --qps 500 --duration 1m --e2e                 ... and how long until results are out
  infertool loadgen --stage 100:30s --stage 500:2m --e2e --save run.jsonl
  infertool loadgen --ramp 0:1000:60s --arrivals poisson --e2e    where is the limit?
  infertool loadgen --qps 100 --burst 2000:5s/60s --duration 5m --e2e --assert 'lost == 0'
  infertool loadgen --qps 200 --duration 1m --rpc                 requests, and how long until their replies
  infertool loadgen --qps 500 --duration 1m --http http://127.0.0.1:8080 --obey-retry-after
  infertool loadgen --qps 50 --payload events.jsonl --set 'features[0]=normal(0,1)' --poison-rate 0.01
  infertool loadgen report run.jsonl --html run.html              plots of a saved run
"""


class Arrivals(StrEnum):
    """Arrival process of the events."""

    constant = "constant"
    poisson = "poisson"


class Pick(StrEnum):
    """Order of several payloads."""

    turn = "turn"
    random = "random"


class Kind(StrEnum):
    """The JMS type of an event."""

    text = "text"
    bytes = "bytes"


app = typer.Typer(invoke_without_command=True, rich_markup_mode=None, epilog=EXAMPLE)
app.command(epilog=REPORT_EXAMPLE)(report)


@app.callback(epilog=EXAMPLE)
def loadgen(
    ctx: typer.Context,
    qps: Annotated[float | None, typer.Option(help="Events a second.", metavar="N")] = None,
    arrivals: Annotated[Arrivals, typer.Option(help="Evenly spaced, or at random (Poisson).")] = Arrivals.constant,
    stage: Annotated[
        list[str] | None, typer.Option(help="A rate for a duration; repeatable, in sequence.", metavar="N:DURATION")
    ] = None,
    ramp: Annotated[
        str | None, typer.Option(help="Change the rate linearly from N to M.", metavar="N:M:DURATION")
    ] = None,
    burst: Annotated[
        str | None, typer.Option(help="With --qps: bursts, as 2000:5s/60s.", metavar="N:LENGTH/PERIOD")
    ] = None,
    trace: Annotated[
        list[str] | None,
        typer.Option(
            help="1%: share of events with recorded traces. FILE: send times, one a line.",
            metavar="SHARE|FILE",
        ),
    ] = None,
    speed: Annotated[str, typer.Option(help="With --trace FILE: 2x is twice as fast.", metavar="FACTOR")] = "1x",
    closed: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="Closed model: keep N events open.", metavar="N")
    ] = None,
    duration: Annotated[str | None, typer.Option(help="Time to send.", metavar="DURATION")] = None,
    count: Annotated[
        int | None, typer.Option(min=1, max=10_000_000, help="Number of events to send.", metavar="N")
    ] = None,
    warmup: Annotated[
        str, typer.Option(help="Events of this first time are sent, not counted.", metavar="DURATION")
    ] = "0s",
    max_late: Annotated[
        str | None, typer.Option(help="Drop and count events later than this.", metavar="DURATION")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same times and bodies.", metavar="N")] = 0,
    payload: Annotated[
        str | None, typer.Option(help="JSON or JSON lines to send; - is standard input.", metavar="FILE")
    ] = None,
    pick: Annotated[Pick, typer.Option(help="With several payloads: their order.")] = Pick.turn,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Fill a field: features[0]=normal(0,1); repeatable.", metavar="PATH=VALUE"),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Pad bodies to this size: 400, normal(400,100).", metavar="BYTES")
    ] = None,
    poison_rate: Annotated[float, typer.Option(help="Share of broken events.", metavar="SHARE")] = 0.0,
    priority: Annotated[
        str | None, typer.Option(help="Random priorities: high:9=0.1,low:4=0.9.", metavar="SHARES")
    ] = None,
    header: Annotated[list[str] | None, typer.Option(help="A header; repeatable.", metavar="NAME=VALUE")] = None,
    type_: Annotated[Kind, typer.Option("--type", help="JMS type of the events.")] = Kind.text,
    persistent: Annotated[bool, typer.Option(help="Make the broker keep events over a restart.")] = True,
    confirm: Annotated[bool, typer.Option("--confirm", help="Ask for a receipt of each event; measure it.")] = False,
    in_flight: Annotated[
        int | None,
        typer.Option(
            min=1, max=20_000, help="Maximum unconfirmed events (200), or requests under way (1000).", metavar="N"
        ),
    ] = None,
    e2e: Annotated[bool, typer.Option("--e2e", help="Join the results and alerts; measure to their arrival.")] = False,
    settle: Annotated[
        str, typer.Option(help="With --e2e: end after this time without a result.", metavar="DURATION")
    ] = "10s",
    rpc: Annotated[
        bool, typer.Option("--rpc", help="Send requests; measure to their replies. They are not persistent.")
    ] = False,
    http: Annotated[
        str | None, typer.Option(help="Send requests to a gateway; measure to their responses.", metavar="URL")
    ] = None,
    class_: Annotated[
        str | None, typer.Option("--class", help="With --http: class of the requests.", metavar="C")
    ] = None,
    key_file: Annotated[str | None, typer.Option(help="With --http: file of the API key.", metavar="FILE")] = None,
    obey_retry_after: Annotated[
        bool, typer.Option("--obey-retry-after", help="With --http: a refused client asks once more, at the told time.")
    ] = False,
    timeout: Annotated[
        str | None, typer.Option(help="Longest wait for a reply (10s) or a response (30s).", metavar="DURATION")
    ] = None,
    connections: Annotated[int, typer.Option(min=1, max=100, help="Connections of each process.", metavar="N")] = 1,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Number of processes that send.", metavar="N")] = 1,
    broker: Annotated[str | None, typer.Option(help="Broker, e.g. stomp://a:61613,b:61613.", metavar="URL")] = None,
    queue: Annotated[str | None, typer.Option(help="Queue to send to.", metavar="Q")] = None,
    dlq: Annotated[str | None, typer.Option(help="With --e2e: dead-letter queue to count.", metavar="Q")] = None,
    phoenix: Annotated[
        str | None, typer.Option(help="With --e2e: Phoenix socket, ws:// or wss://.", metavar="URL")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Save the run, second by second.", metavar="FILE")] = None,
    asserts: Annotated[
        list[str] | None,
        typer.Option("--assert", help="CEL expression that must hold: 'e2e.p99_ms < 500'.", metavar="EXPRESSION"),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Serve metrics and health while it runs, e.g. 9465.", metavar="[HOST:]PORT")
    ] = None,
    output: Annotated[TableOrJson, typer.Option("--output", "-o", help="Form of the report.")] = TableOrJson.table,
) -> None:
    """Send events by a plan, and report their latencies and losses. For saved runs: loadgen report.

    The model is open: each event has its due time, independently of earlier events, and latencies count from that time.
    Ctrl-C ends the sending; results of sent events are still awaited. Exit code 1 when an --assert does not hold.
    """
    if ctx.invoked_subcommand:
        from infertool.cli.common.typed_options import check_place

        check_place(ctx)
        return
    from infertool.app.traces import check_traces
    from infertool.cli.common.options import check_sent_to
    from infertool.cli.loadgen.run import given, refuse_unused, run
    from infertool.errors import UsageError
    from infertool.load.arrivals import Planned, Process, parse_speed
    from infertool.load.headers import EnvelopeOptions
    from infertool.load.http_options import HttpOptions
    from infertool.load.options import LoadOptions
    from infertool.load.payloads import Order, PayloadOptions, read
    from infertool.load.shapes import check_rate
    from infertool.load.traces import of_option
    from infertool.message import BodyKind
    from infertool.text.input import parse_duration

    loaded = ctx.obj.load({
        "broker.url": ("--broker", broker),
        "broker.queue": ("--queue", queue),
        "deadletter.queue": ("--dlq", dlq),
        "phoenix.url": ("--phoenix", phoenix),
        "gateway.client_key_file": ("--key-file", key_file),
    })  # fmt: skip
    check_traces(loaded.settings)
    times, traced = of_option(trace or ())
    planned = Planned(
        qps=None if qps is None else check_rate("--qps", qps),
        process=Process(arrivals.value),
        stages=tuple(stage or ()),
        ramp=ramp,
        burst=burst,
        trace=times,
        speed=parse_speed(speed),
        duration_s=None if duration is None else parse_duration(duration, "--duration"),
        count=count,
        warmup_s=parse_duration(warmup, "--warmup"),
        seed=seed,
    )
    asked = None
    if http:
        asked = HttpOptions(
            url=http,
            timeout_s=parse_duration(timeout or "30s", "--timeout"),
            class_name=class_ or "",
            key=loaded.settings.gateway.client_key,
            obeys=obey_retry_after,
        )
        for option, value in (("--broker", broker), ("--queue", queue), ("--dlq", dlq), ("--phoenix", phoenix)):
            if value:
                raise UsageError(
                    f"--http and {option} contradict each other", advice="requests go to the gateway alone"
                )
    elif class_ or key_file or obey_retry_after:
        raise UsageError("--class, --key-file and --obey-retry-after are for --http")
    elif timeout and not rpc:
        raise UsageError("--timeout is for --rpc and --http", advice="--settle ends the wait for results (--e2e)")
    options = LoadOptions(
        planned=planned,
        envelope=EnvelopeOptions(
            queue="" if http else check_sent_to(loaded.settings),
            kind=BodyKind(type_.value),
            persistent=persistent and not rpc,
            headers=tuple(header or ()),
            priority=priority,
            traced=traced,
            broker_url=loaded.settings.broker.url,
        ),
        payloads=PayloadOptions(
            documents=() if payload is None else read(payload),
            order=Order(pick.value),
            assignments=tuple(set_ or ()),
            size=size,
            poison_rate=poison_rate,
        ),
        closed=closed,
        confirm=confirm,
        given_in_flight=in_flight,
        max_late_s=float("inf") if max_late is None else parse_duration(max_late, "--max-late"),
        e2e=e2e,
        settle_s=parse_duration(settle, "--settle"),
        rpc_timeout_s=parse_duration(timeout or "10s", "--timeout") if rpc else None,
        http=asked,
        export_traces=loaded.settings.telemetry.traces == "otlp",
        connections=connections,
        processes=processes,
    )
    refuse_unused(ctx, options)
    run(
        loaded.settings,
        options,
        given(ctx),
        save=save,
        metrics=metrics,
        expressions=asserts or (),
        as_json=output is TableOrJson.json,
        quiet=ctx.obj.quiet,
    )
