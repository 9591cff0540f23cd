"""`infertool call`: call a server behind a queue."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from infertool.cli.common.outputs import TextOrJson

EXAMPLE = """Examples:

\b
  infertool call predict '{"features": [1, 2]}'              the reply goes to standard output
  infertool call predict @request.json --timeout 30s         from a file; - is standard input
  infertool call predict '[1, 2]' --codec msgpack            a server that speaks MessagePack
  infertool call predict '{}' --count 1000 --concurrency 8   how long do replies take?
  infertool call predict '{}' -o json | jq .value            for a program
"""


class CodecName(StrEnum):
    """The form of the request's body."""

    json = "json"
    msgpack = "msgpack"


def call(
    ctx: typer.Context,
    queue: Annotated[str, typer.Argument(help="Queue of the server.", metavar="QUEUE")],
    payload: Annotated[
        str, typer.Argument(help="JSON, or @FILE with JSON; - is standard input.", metavar="[PAYLOAD | @FILE | -]")
    ] = "-",
    timeout: Annotated[str, typer.Option(help="Longest wait for a reply.", metavar="DURATION")] = "5s",
    codec: Annotated[CodecName, typer.Option(help="Form of the request.")] = CodecName.json,
    header: Annotated[list[str] | None, typer.Option(help="A header; repeatable.", metavar="NAME=VALUE")] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=255, help="Priority of the request.", metavar="N")] = None,
    count: Annotated[int, typer.Option(min=1, max=10_000_000, help="Number of calls.", metavar="N")] = 1,
    concurrency: Annotated[
        int, typer.Option(min=1, max=10_000, help="With --count: calls at a time.", metavar="C")
    ] = 1,
    retry: Annotated[
        bool, typer.Option("--retry", help="Send again when the connection is lost; a server may see it twice.")
    ] = False,
    broker: Annotated[str | None, typer.Option(help="Broker, e.g. stomp://a:61613,b:61613.", metavar="URL")] = None,
    output: Annotated[TextOrJson, typer.Option("--output", "-o", help="Form of the output.")] = TextOrJson.text,
) -> None:
    """Send a request to a queue, wait for its reply, and print that as JSON.

    Exit codes: 0 answered, 1 the server answered a failure, 2 usage, 3 no broker or no such queue, 4 timed out. With
    --count the code is that of the most frequent failure.
    """
    from infertool import brokers
    from infertool.brokers.headers import NAMES, from_options
    from infertool.cli.call.run import Calls, Request, read_payload
    from infertool.cli.common.typed_options import check_used
    from infertool.errors import UsageError
    from infertool.text.input import parse_duration

    if concurrency > count:
        raise UsageError(f"--concurrency {concurrency} needs --count {concurrency} or more")
    loaded = ctx.obj.load({"broker.url": ("--broker", broker)})
    can = brokers.adapter(loaded.settings.broker.url).CAPABILITIES
    check_used(ctx, ("priority", can.priorities, "the broker has none: serve urgent calls on another queue"))
    timeout_s = parse_duration(timeout, "--timeout")
    if timeout_s <= 0:
        raise UsageError("--timeout must be above 0")
    request = Request(
        queue=queue,
        payload=read_payload(payload),
        timeout_s=timeout_s,
        codec=codec.value,
        headers=from_options(header or (), brokers.conventions(loaded.settings.broker.url), NAMES, "the call"),
        priority=priority,
        retry=retry,
    )
    calls = Calls(loaded.settings.broker, request, as_json=output is TextOrJson.json, quiet=ctx.obj.quiet)
    calls.run(count, concurrency)
