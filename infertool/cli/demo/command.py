"""`infertool demo`: the whole bus at once."""

from __future__ import annotations

from typing import Annotated

import typer

from infertool.cli.common.outputs import TextOrJson

EXAMPLE = """Examples:

\b
  infertool demo                          30 seconds, 20 events a second
  infertool demo --for 2m --qps 200       a busier bus
  infertool demo --for 10s -o json        only the summary, for scripts
  infertool demo --burst                  ten times the capacity through the gateway: served, queued, refused
"""


def demo(
    ctx: typer.Context,
    for_: Annotated[
        str | None,
        typer.Option("--for", help="Time for which events are sent: 30s, of a burst 10s.", metavar="DURATION"),
    ] = None,
    qps: Annotated[float, typer.Option(min=0.1, max=2000, help="Events a second.", metavar="N")] = 20,
    metrics: Annotated[
        str | None,
        typer.Option(help="Serve metrics, health and stats of the consumer, e.g. 9464.", metavar="[HOST:]PORT"),
    ] = None,
    burst: Annotated[
        bool,
        typer.Option("--burst", help="Send ten times the capacity through the gateway, and show what becomes of it."),
    ] = False,
    no_gateway: Annotated[bool, typer.Option("--no-gateway", help="Start no HTTP gateway.")] = False,
    gateway_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="PORT", help="Port of the gateway; 0 for any. By default 8080 if free."),
    ] = None,
    output: Annotated[TextOrJson, typer.Option("--output", "-o", help="Form of the summary.")] = TextOrJson.text,
) -> None:
    """Run a broker, a channel server, a consumer, a producer and an HTTP gateway here, and show results as they come.

    It needs no other software and leaves nothing behind. The simulated model takes 100-500 ms and fails on 5 % of the
    events; the demo does not retry, so that alerts and dead letters can be seen.
    """
    from infertool.cli.common.typed_options import check_used, is_typed, spelling
    from infertool.errors import UsageError
    from infertool.text.input import parse_duration, parse_listen_address

    seconds = None if for_ is None else parse_duration(for_, "--for")
    if seconds == 0:
        raise UsageError("--for must be above 0")
    if metrics is not None:
        parse_listen_address(metrics)
    if burst:
        from infertool.cli.demo.burst import run

        if given := [name for name in ("qps", "metrics", "no_gateway", "gateway_port") if is_typed(ctx, name)]:
            option = spelling(given[0])
            raise UsageError(f"--burst has a rate and a gateway of its own, without {option}", advice="leave that out")
        run(seconds=seconds or 10.0, as_json=output is TextOrJson.json, quiet=ctx.obj.quiet)
        return

    from infertool.cli.demo.run import Demo

    check_used(ctx, ("gateway_port", not no_gateway, "leave out --no-gateway"))
    Demo(
        seconds=seconds or 30.0,
        rate=qps,
        metrics=metrics,
        as_json=output is TextOrJson.json,
        quiet=ctx.obj.quiet,
        has_gateway=not no_gateway,
        gateway_port=gateway_port,
    ).run()
