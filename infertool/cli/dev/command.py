"""`infertool dev`: the embedded broker and channel server."""

from __future__ import annotations

from typing import Annotated

import typer

from infertool.cli.common.outputs import TextOrJson

EXAMPLE = """Examples:

\b
  infertool dev                                       default ports, so that consume and tail need no options
  infertool dev --stomp-port 0 --http-port 0 -o json  any free ports; one ready line for scripts
  infertool dev --no-broker                           only the channel server, beside a real ActiveMQ
"""


def dev(
    ctx: typer.Context,
    stomp_port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port of the broker; 0 for any.")
    ] = 61613,
    http_port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port of the channel server; 0 for any.")
    ] = 4000,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    no_broker: Annotated[bool, typer.Option("--no-broker", help="Start no STOMP broker.")] = False,
    no_hub: Annotated[bool, typer.Option("--no-hub", help="Start no channel server.")] = False,
    no_gateway: Annotated[bool, typer.Option("--no-gateway", help="Start no HTTP gateway.")] = False,
    gateway_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="PORT", help="Port of the gateway; 0 for any. By default 8080 if free."),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Serve metrics and health of both servers, e.g. 9466.", metavar="[HOST:]PORT")
    ] = None,
    output: Annotated[TextOrJson, typer.Option("--output", "-o", help="Form of the ready line.")] = TextOrJson.text,
) -> None:
    """Run a STOMP broker, a Phoenix-compatible channel server with a dashboard, and an HTTP gateway.

    In memory, for development only.
    """
    from infertool.app.traces import check_traces
    from infertool.cli.common.typed_options import check_used
    from infertool.cli.dev.run import serve

    check_used(
        ctx,
        ("stomp_port", not no_broker, "leave out --no-broker"),
        ("http_port", not no_hub, "leave out --no-hub"),
        ("gateway_port", not no_gateway, "leave out --no-gateway"),
        ("gateway_port", not no_broker, "the gateway needs the broker: leave out --no-broker"),
    )

    settings = ctx.obj.load({}).settings
    check_traces(settings)
    serve(
        host=host,
        stomp_port=None if no_broker else stomp_port,
        http_port=None if no_hub else http_port,
        metrics=metrics,
        as_json=output is TextOrJson.json,
        quiet=ctx.obj.quiet,
        traces=settings.telemetry.traces == "otlp",
        has_gateway=not no_gateway,
        gateway_port=gateway_port,
    )
