"""`infertool consume`: run the consumer."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from infertool.cli.common.model_options import (
    BatchSize,
    BatchWait,
    Cache,
    Concurrency,
    Devices,
    ExecutorOption,
    TargetLatency,
    Workers,
    number_or_auto,
    refuse_unused,
)
from infertool.cli.common.outputs import TableOrJson
from infertool.cli.common.typed_options import check_used

EXAMPLE = """Examples:

\b
  infertool consume                                   all defaults
  infertool consume --model app.model:predict --concurrency 32
  infertool consume --model http://models:8080/predict --cache 10000:5m
  infertool consume --publish stdout --exit-when-idle 5s -o json
  infertool consume --model app.model:predict --executor processes      one call a core
  infertool consume --model app.model:Net --target-latency 50ms      batches, if it takes them
  infertool consume --model service.py:handle --reply                   answer requests; nothing is published
"""


class Confirm(StrEnum):
    """How a push is confirmed."""

    auto = "auto"
    reply = "reply"
    echo = "echo"
    barrier = "barrier"
    none = "none"


class ReplyForm(StrEnum):
    """What a reply's body is."""

    result = "result"
    outcome = "outcome"


class Format(StrEnum):
    """Codec of messages that do not name theirs."""

    json = "json"
    msgpack = "msgpack"


class Publish(StrEnum):
    """Where outcomes go."""

    phoenix = "phoenix"
    stdout = "stdout"
    none = "none"


def consume(
    ctx: typer.Context,
    broker: Annotated[str | None, typer.Option(help="Broker, e.g. stomp://a:61613,b:61613.", metavar="URL")] = None,
    queue: Annotated[str | None, typer.Option(help="Queue, or queues with weights: a=8,b=1.", metavar="Q")] = None,
    dlq: Annotated[str | None, typer.Option(help="Dead-letter queue.", metavar="Q")] = None,
    declare: Annotated[
        bool | None, typer.Option("--declare/--no-declare", help="Create missing queues (amqp://).")
    ] = None,
    phoenix: Annotated[str | None, typer.Option(help="Phoenix socket, ws:// or wss://.", metavar="URL")] = None,
    topic: Annotated[str | None, typer.Option(help="Channel that takes results.", metavar="T")] = None,
    join_param: Annotated[
        list[str] | None,
        typer.Option(help="Sent in the join's payload; repeatable. The token is there already.", metavar="NAME=VALUE"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="sim:, module:callable, file.py:callable, a name, onnx:FILE, http://...", metavar="SPEC"),
    ] = None,
    cache: Cache = None,
    executor: ExecutorOption = None,
    concurrency: Concurrency = None,
    workers: Workers = None,
    devices: Devices = None,
    max_tasks_per_worker: Annotated[
        int | None, typer.Option(min=1, help="Replace a worker process after N events.", metavar="N")
    ] = None,
    batch_size: BatchSize = None,
    batch_wait: BatchWait = None,
    target_latency: TargetLatency = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Consumer processes under one supervisor.", metavar="N")
    ] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Unsettled messages held at most.", metavar="N")] = None,
    reply: Annotated[
        bool | None, typer.Option("--reply/--no-reply", help="Answer to each message's reply address; see docs/rpc.md.")
    ] = None,
    reply_form: Annotated[
        ReplyForm | None, typer.Option(help="A reply's body: the result itself, or the whole document.")
    ] = None,
    codec: Annotated[Format | None, typer.Option(help="Codec of messages whose content type names none.")] = None,
    confirm: Annotated[Confirm | None, typer.Option(help="How a push is confirmed.")] = None,
    publish: Annotated[Publish | None, typer.Option(help="Where outcomes go; stdout prints JSON lines.")] = None,
    publish_batch: Annotated[
        str | None, typer.Option(help="Most results in one push, where the channel takes batches.", metavar="N|auto")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1, help="Tries before dead-lettering.", metavar="N")] = None,
    max_messages: Annotated[int | None, typer.Option(min=1, help="End after N events.", metavar="N")] = None,
    exit_when_idle: Annotated[
        str | None, typer.Option(help="End when no event has come for this time, e.g. 5s.", metavar="DURATION")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Serve metrics, health and stats, e.g. 9464; see docs/operating.md.", metavar="[HOST:]PORT"),
    ] = None,
    output: Annotated[
        TableOrJson, typer.Option("--output", "-o", help="Form of the summary at the end.")
    ] = TableOrJson.table,
) -> None:
    """Take events from the broker, run the model, push results and alerts to Phoenix.

    At-least-once: an event is acknowledged after Phoenix confirmed its result, or together with its dead letter.
    Ctrl-C or SIGTERM finishes the events in progress; a second Ctrl-C leaves at once. Nothing is lost either way.
    """
    from infertool.cli.common.options import parse_pairs
    from infertool.text.input import parse_duration

    wait_s = None if batch_wait is None else parse_duration(batch_wait, "--batch-wait")
    target_s = None if target_latency is None else parse_duration(target_latency, "--target-latency")
    idle_s = None if exit_when_idle is None else parse_duration(exit_when_idle, "--exit-when-idle")
    params = parse_pairs("--join-param", join_param, "room=a") if join_param else None
    loaded = ctx.obj.load({
        "broker.url": ("--broker", broker),
        "broker.queue": ("--queue", queue),
        "deadletter.queue": ("--dlq", dlq),
        "broker.declare": ("--declare", declare),
        "phoenix.url": ("--phoenix", phoenix),
        "phoenix.topic": ("--topic", topic),
        "phoenix.join_params": ("--join-param", params),
        "phoenix.confirm": ("--confirm", confirm and confirm.value),
        "model.spec": ("--model", model),
        "model.cache": ("--cache", cache),
        "consume.executor": ("--executor", executor and executor.value),
        "consume.concurrency": ("--concurrency", number_or_auto(concurrency)),
        "consume.workers": ("--workers", workers),
        "consume.devices": ("--devices", devices),
        "consume.max_tasks_per_worker": ("--max-tasks-per-worker", max_tasks_per_worker),
        "consume.batch_size": ("--batch-size", number_or_auto(batch_size)),
        "consume.batch_wait_s": ("--batch-wait", wait_s),
        "consume.target_latency_s": ("--target-latency", target_s),
        "consume.processes": ("--processes", processes),
        "consume.window": ("--window", window),
        "consume.max_attempts": ("--max-attempts", max_attempts),
        "consume.reply": ("--reply", reply),
        "consume.reply_form": ("--reply-form", reply_form and reply_form.value),
        "contract.format": ("--codec", codec and codec.value),
        "publish.mode": ("--publish", publish and publish.value),
        "publish.batch": ("--publish-batch", number_or_auto(publish_batch)),
        "telemetry.metrics": ("--metrics", metrics),
    })  # fmt: skip

    from infertool.app.consumer import check, with_replies_alone
    from infertool.cli.consume.run import run
    from infertool.cli.consume.view import check_model
    from infertool.consumer.consumer import Until

    until = Until(max_messages=max_messages, idle_s=idle_s)
    check_model(loaded)
    settings = with_replies_alone(loaded)
    check(settings, until)
    refuse_unused(ctx, settings.consume)
    is_pushed, how = settings.publish.mode == "phoenix", "results are not pushed to Phoenix: use --publish phoenix"
    check_used(
        ctx,
        ("join_param", is_pushed, how),
        ("confirm", is_pushed, how),
        ("publish_batch", is_pushed, how),
        ("reply_form", settings.consume.reply, "it is the form of replies: add --reply"),
    )
    run(settings, until, as_json=output is TableOrJson.json, quiet=ctx.obj.quiet)
