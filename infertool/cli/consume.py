"""`infertool consume`: run the consumer."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

EXAMPLE = """Examples:

\b
  infertool consume                                   all defaults
  infertool consume --model app.model:predict --concurrency 32
  infertool consume --publish stdout --exit-when-idle 5s -o json
"""


class Output(StrEnum):
    """Form of the summary."""

    table = "table"
    json = "json"


class Confirm(StrEnum):
    """What proves a push."""

    auto = "auto"
    reply = "reply"
    echo = "echo"
    barrier = "barrier"
    none = "none"


class Publish(StrEnum):
    """Where outcomes go."""

    phoenix = "phoenix"
    stdout = "stdout"
    none = "none"


def consume(
    ctx: typer.Context,
    broker: Annotated[str | None, typer.Option(help="Broker, e.g. stomp://a:61613,b:61613.", metavar="URL")] = None,
    queue: Annotated[str | None, typer.Option(help="Queue to consume.", metavar="Q")] = None,
    dlq: Annotated[str | None, typer.Option(help="Dead-letter queue.", metavar="Q")] = None,
    phoenix: Annotated[str | None, typer.Option(help="Phoenix socket, ws:// or wss://.", metavar="URL")] = None,
    topic: Annotated[str | None, typer.Option(help="Channel that takes results.", metavar="T")] = None,
    model: Annotated[
        str | None, typer.Option(help="sim:, module:callable, file.py:callable or a name.", metavar="SPEC")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Events in work at the same time.", metavar="N")
    ] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Unsettled messages held at most.", metavar="N")] = None,
    confirm: Annotated[Confirm | None, typer.Option(help="What proves a push.")] = None,
    publish: Annotated[Publish | None, typer.Option(help="Where outcomes go; stdout prints JSON lines.")] = None,
    publish_batch: Annotated[
        int | None, typer.Option(min=1, help="Most results in one push, where the channel takes batches.", metavar="N")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1, help="Tries before dead-lettering.", metavar="N")] = None,
    max_messages: Annotated[int | None, typer.Option(min=1, help="End after N events.", metavar="N")] = None,
    exit_when_idle: Annotated[
        str | None, typer.Option(help="End when no event came for so long, e.g. 5s.", metavar="DURATION")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="Form of the summary at the end.")] = Output.table,
) -> None:
    """Take events from the broker, run the model, push results and alerts to Phoenix.

    At-least-once: an event is acknowledged after Phoenix confirmed its result, or together with its dead letter.
    Ctrl-C or SIGTERM finishes what is in work; a second Ctrl-C leaves at once. Nothing is lost either way.
    """
    from infertool.units import parse_duration

    idle_s = None if exit_when_idle is None else parse_duration(exit_when_idle)
    loaded = ctx.obj.load({
        "broker.url": ("--broker", broker),
        "broker.queue": ("--queue", queue),
        "deadletter.queue": ("--dlq", dlq),
        "phoenix.url": ("--phoenix", phoenix),
        "phoenix.topic": ("--topic", topic),
        "phoenix.confirm": ("--confirm", confirm and confirm.value),
        "model.spec": ("--model", model),
        "consume.concurrency": ("--concurrency", concurrency),
        "consume.window": ("--window", window),
        "consume.max_attempts": ("--max-attempts", max_attempts),
        "publish.mode": ("--publish", publish and publish.value),
        "publish.batch": ("--publish-batch", publish_batch),
    })  # fmt: skip

    from infertool.cli.consuming import run
    from infertool.pipeline.consumer import Until

    run(
        loaded.settings,
        Until(max_messages=max_messages, idle_s=idle_s),
        as_json=output is Output.json,
        quiet=ctx.obj.quiet,
    )
