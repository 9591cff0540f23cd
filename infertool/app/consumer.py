"""Putting a consumer together, running it, and summing up."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from infertool import brokers
from infertool.cli.common import console
from infertool.cli.common import process as streams
from infertool.cli.common.options import check_consumed
from infertool.cli.common.process import watch_threads
from infertool.cli.common.signals import stopped_by_signals
from infertool.cli.consume import view as starting
from infertool.cli.consume import view as status
from infertool.consumer.consumer import Consumer, Until
from infertool.consumer.delivery import Lines, LocalPublisher, OnResults, Publisher, nowhere
from infertool.consumer.processes.pool import Processes
from infertool.consumer.processes.wire import WorkerConfig
from infertool.consumer.tuning import concurrency
from infertool.consumer.worker_pool import Threads, WorkerPool
from infertool.errors import SettingsError, UsageError
from infertool.models import guard, loader
from infertool.models.guard import text_of
from infertool.models.loader import is_remote, open_model
from infertool.models.port import LoadedModel
from infertool.phoenix.delivery import Delivery, Push
from infertool.settings import ModelSettings, Settings, paths
from infertool.settings.paths import anchored
from infertool.telemetry import logs
from infertool.telemetry.signals import Circuit, ConnectionChanged, Flow, Observe, Warned, fan_out
from infertool.telemetry.stats import Snapshot, Stats
from infertool.text import sanitize

STOPPING = "stopping: finishing what is in work (Ctrl-C again leaves at once; nothing is lost)"


def run(settings: Settings, until: Until, *, as_json: bool, quiet: bool) -> None:
    """Run a consumer until it ends, then print its summary. Raises what ends it early."""
    logs.set_up(settings.telemetry.log_level, settings.telemetry.log_format)
    streams.keep_for_data()
    stats = Stats()
    with console.reporting(lambda: done(stats.snapshot())):
        consume(settings, until, [stats], STOPPING, _shown(settings, until, stats, quiet=quiet))
    # Among outcomes on stdout a table would be noise.
    to = console.err if settings.publish.mode == "stdout" else console.out
    print_summary(stats.snapshot(), as_json=as_json, to=to)


@contextmanager
def _shown(settings: Settings, until: Until, stats: Stats, *, quiet: bool) -> Iterator[None]:
    """Say what starts, once the model is ready; then show the status."""
    starting.log_start(settings, until.max_messages)
    with status.shown(stats, settings.telemetry.status_interval_s, quiet=quiet):
        yield


def consume(
    settings: Settings, until: Until, observers: Sequence[Observe], notice: str, shown: AbstractContextManager[None]
) -> None:
    """Run a consumer until it ends, with its status `shown`. Raises what ends it early."""
    settings = anchored(settings)
    log_lines = logs.LogObserver()
    observe = fan_out([*observers, log_lines])
    with closing(log_lines), _worker_pool(settings, observe) as worker_pool:
        consumer = _consumer(settings, worker_pool, until, observe)
        watch_threads(consumer.fail)
        with stopped_by_signals(consumer.stop, notice), shown:
            consumer.run()


def check(settings: Settings, until: Until) -> None:
    """Raise `UsageError` or `SettingsError` for what does not fit together."""
    check_consumed(settings)
    consume = settings.consume
    if consume.target_latency_s and consume.batch_size == 1:
        raise SettingsError(
            "consume.target_latency_s is for batches, and consume.batch_size is 1",
            key="consume.target_latency_s",
            advice="give the largest batch as well, for example --batch-size 64",
        )
    if consume.executor == "processes" and consume.concurrency == "auto":
        raise SettingsError(
            "consume.concurrency auto is for threads, and consume.executor is processes",
            key="consume.concurrency",
            advice="set the number of processes with --workers",
        )
    if consume.batch_size > 1 and consume.concurrency == "auto":
        raise SettingsError(
            "consume.concurrency auto is for single events, and consume.batch_size is more than 1",
            key="consume.concurrency",
            advice="adapt the batches with --target-latency",
        )
    if consume.executor == "processes" and is_remote(settings.model):
        raise SettingsError(
            "consume.executor processes is for models that compute, and a model server is waited for",
            key="consume.executor",
            advice="use --executor threads",
        )
    if consume.processes > 1 and until.max_messages is not None:
        raise UsageError(
            "--max-messages cannot be shared by several processes", advice="use --processes 1, or --exit-when-idle"
        )
    if consume.processes > 1 and settings.publish.mode == "stdout":
        raise UsageError(
            "several processes cannot share stdout: their lines would mix",
            advice="use --processes 1, or --publish none",
        )


@contextmanager
def _worker_pool(settings: Settings, observe: Observe) -> Iterator[WorkerPool]:
    """Yield who works, with the model warmed up; close it in the end. Raises `ModelLoadError`."""
    consume = settings.consume
    in_batches = consume.batch_size > 1
    if consume.executor == "processes":
        config = WorkerConfig(settings.model, in_batches, consume.max_tasks_per_worker, consume.worker_memory_bytes)
        with Processes(config, concurrency(consume), lambda text: observe(Warned(text))) as worker_pool:
            yield worker_pool
    else:
        with _ready(settings.model, observe) as model:
            yield Threads(model, in_batches=in_batches)


@contextmanager
def _ready(settings: ModelSettings, observe: Observe) -> Iterator[LoadedModel]:
    """Yield the model, warmed up; close it in the end, also when its warm-up failed. Raises `ModelLoadError`."""
    watch_threads(logs.log.error)
    with guard.kept():
        model = open_model(settings, lambda *change: observe(Circuit(*change)))
    try:
        with guard.kept():
            loader.warm_up(model)
        yield model
    finally:
        _close(model)


def _close(model: LoadedModel) -> None:
    try:
        model.close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  (a model may raise anything; the work is done and settled)
        logs.log.warning("closing model %s failed: %s: %s", model.name, type(error).__name__, text_of(error))


def _consumer(settings: Settings, worker_pool: WorkerPool, until: Until, observe: Observe) -> Consumer:
    name = f"{socket.gethostname()}:{os.getpid()}"
    return Consumer(
        settings,
        worker_pool,
        open_broker=lambda on_connection: brokers.open(settings.broker, name=name, on_connection=on_connection),
        make_publisher=lambda on_results: _publisher(settings, on_results, observe),
        name=name,
        state_dir=Path(settings.consume.state_dir) if settings.consume.state_dir else paths.state_dir(os.environ),
        observe=observe,
        until=until,
    )


def _publisher(settings: Settings, on_results: OnResults, observe: Observe) -> Publisher:
    match settings.publish.mode:
        case "stdout":
            return LocalPublisher(_lines(), on_results)
        case "none":
            return LocalPublisher(nowhere, on_results)
        case "phoenix":
            return Delivery(
                settings.phoenix,
                on_results=on_results,
                on_connection=lambda event: observe(ConnectionChanged("phoenix", event)),
                on_flow=lambda paused: observe(Flow(paused)),
                on_warning=lambda text: observe(Warned(text)),
            )


def _lines() -> Callable[[Sequence[Push]], None]:
    """Return what writes documents to standard output, a line each. Raises `OutputError`."""
    stream = console.data_stream()
    if not console.on_terminal():
        return Lines(stream.buffer)
    alone = threading.Lock()

    def write(pushes: Sequence[Push]) -> None:
        with alone:
            console.out_data(*(push.payload.decode() for push in pushes))

    return write


def done(snapshot: Snapshot) -> str:
    """Return what a run did, in one line."""
    counts = snapshot.counts
    return ", ".join(f"{counts[name]} {name.replace('_', '-')}" for name in ("received", "succeeded", "dead_lettered"))


def print_summary(snapshot: Snapshot, *, as_json: bool, to: Callable[[str], None]) -> None:
    """Print the figures of a run. Raises `OutputError`."""
    with console.reporting(done(snapshot)):
        _print_summary(snapshot.summary(), as_json=as_json, to=to)


def _print_summary(summary: Mapping[str, Any], *, as_json: bool, to: Callable[[str], None]) -> None:
    if as_json:
        console.emit_json(summary)
        return
    width = sanitize.widest(summary)
    for key, value in summary.items():
        shown = "  ".join(f"{name} {_or_dash(ms)}" for name, ms in value.items()) if isinstance(value, dict) else value
        to(f"{sanitize.right(key, width)}  {shown}")


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
