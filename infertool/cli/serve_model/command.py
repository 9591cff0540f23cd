"""`infertool serve-model`: a model behind HTTP."""

from __future__ import annotations

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
from infertool.cli.common.outputs import TextOrJson

EXAMPLE = """Examples:

\b
  infertool serve-model app.model:predict                              at http://127.0.0.1:8081, 16 calls at a time
  infertool serve-model onnx:model.onnx --batch-size 64 --target-latency 50ms
  infertool serve-model fraud.py:Fraud --executor processes --workers 4 --max-queue 200 --queue-timeout 2s
  infertool serve-model sim: --listen 0 -o json                        any free port; one ready line for scripts
  curl http://127.0.0.1:8081/predict --json '{"features": [1, 2, 3]}'
  infertool consume --model http://127.0.0.1:8081/predict --batch-size 64
"""


def serve_model(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(help="sim:, module:callable, file.py:callable, a name, onnx:FILE, http://...", metavar="SPEC"),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="Address to listen on; port 0 for any.", metavar="[HOST:]PORT")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name in /v2/models/NAME; by default from SPEC.", metavar="NAME")
    ] = None,
    executor: ExecutorOption = None,
    concurrency: Concurrency = None,
    workers: Workers = None,
    devices: Devices = None,
    batch_size: BatchSize = None,
    batch_wait: BatchWait = None,
    target_latency: TargetLatency = None,
    timeout: Annotated[
        str | None, typer.Option(help="Longest call of the model, e.g. 30s.", metavar="DURATION")
    ] = None,
    cache: Cache = None,
    max_queue: Annotated[
        int | None, typer.Option(min=1, help="Events that wait for the model at most.", metavar="N")
    ] = None,
    queue_timeout: Annotated[
        str | None, typer.Option(help="Longest wait for the model; more is refused, e.g. 2s.", metavar="DURATION")
    ] = None,
    keys_file: Annotated[
        str | None, typer.Option(help="File of API keys, of `infertool gateway keys add`.", metavar="FILE")
    ] = None,
    output: Annotated[TextOrJson, typer.Option("--output", "-o", help="Form of the ready line.")] = TextOrJson.text,
) -> None:
    """Serve a model over HTTP: POST /predict (plain JSON), and the v2 protocol of KServe and Triton at /v2.

    The model is warmed up before requests are taken. When too many wait, more are refused at once with 429 and a
    Retry-After that says when there is room. /metrics, /livez and /readyz are there, too. Ctrl-C or SIGTERM finishes
    what has begun.
    """
    from infertool.app import extra
    from infertool.text.input import parse_duration

    def seconds(text: str | None, option: str) -> float | None:
        return None if text is None else parse_duration(text, option)

    extra.check("serve-model")
    loaded = ctx.obj.load({
        "model.spec": ("SPEC", model),
        "model.cache": ("--cache", cache),
        "serve.listen": ("--listen", listen),
        "serve.name": ("--name", name),
        "serve.max_queue": ("--max-queue", max_queue),
        "serve.queue_timeout_s": ("--queue-timeout", seconds(queue_timeout, "--queue-timeout")),
        "gateway.keys_file": ("--keys-file", keys_file),
        "consume.executor": ("--executor", executor and executor.value),
        "consume.concurrency": ("--concurrency", number_or_auto(concurrency)),
        "consume.workers": ("--workers", workers),
        "consume.devices": ("--devices", devices),
        "consume.batch_size": ("--batch-size", number_or_auto(batch_size)),
        "consume.batch_wait_s": ("--batch-wait", seconds(batch_wait, "--batch-wait")),
        "consume.target_latency_s": ("--target-latency", seconds(target_latency, "--target-latency")),
        "consume.timeout_s": ("--timeout", seconds(timeout, "--timeout")),
    })  # fmt: skip

    from infertool.cli.serve_model.run import run

    refuse_unused(ctx, loaded.settings.consume)
    run(loaded, as_json=output is TextOrJson.json, quiet=ctx.obj.quiet)
