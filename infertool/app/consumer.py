"""A consumer built from settings, for the command line and for Python programs; and the checks of its settings."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Self

from infertool import brokers
from infertool.app.traces import check_traces
from infertool.brokers import registry, weighted_queues
from infertool.brokers.weighted_queues import WeightedQueue
from infertool.consumer.consumer import Consumer, Until
from infertool.consumer.delays import delays_of
from infertool.consumer.processes.devices import assigned
from infertool.consumer.processes.pool import CLOSE_S, Processes
from infertool.consumer.processes.wire import WorkerConfig
from infertool.consumer.router import Published
from infertool.consumer.tracing import Exporter
from infertool.consumer.tuning import asks_for_batches, concurrency
from infertool.consumer.worker import Threads, WorkerPool
from infertool.deadletters.delayed import Delay
from infertool.deadletters.replay import companions
from infertool.errors import SettingsError, UsageError
from infertool.models import loader
from infertool.models.loader import is_remote, open_model
from infertool.models.port import LoadedModel
from infertool.models.user_code import text_of, type_of
from infertool.publishers.local import Lines, LocalPublisher, discard
from infertool.publishers.phoenix import PhoenixPublisher
from infertool.publishers.port import Publisher
from infertool.settings import ConsumeSettings, ModelSettings, Settings
from infertool.settings.load import Loaded, anchored, state_dir
from infertool.telemetry import logs
from infertool.telemetry.signals import Circuit, Observe, SpansDropped, Warned, fan_out
from infertool.telemetry.stats import Report, Snapshot, Stats


def check(settings: Settings, until: Until) -> None:
    """Raise `UsageError` or `SettingsError` for settings that exclude each other."""
    check_queues(settings)
    consume = settings.consume
    if consume.target_latency_s and consume.batch_size != "auto":
        raise SettingsError(
            f"consume.target_latency_s is for batch size auto, and consume.batch_size is {consume.batch_size}",
            key="consume.target_latency_s",
            advice="leave out --batch-size; consume.max_batch_size bounds the size",
        )
    if asks_for_batches(consume) and consume.concurrency == "auto":
        raise SettingsError(
            "consume.concurrency auto is for single events, and the settings ask for batches",
            key="consume.concurrency",
            advice="leave out --concurrency: batches adapt by themselves",
        )
    if consume.executor == "processes" and is_remote(settings.model):
        raise SettingsError(
            "consume.executor processes is for models that compute, and a model server is waited for",
            key="consume.executor",
            advice="use --executor threads",
        )
    check_executor(consume)
    check_traces(settings)
    if consume.processes > 1 and until.max_messages is not None:
        raise UsageError(
            "--max-messages cannot be shared by several processes", advice="use --processes 1, or --exit-when-idle"
        )
    if consume.processes > 1 and settings.publish.mode == "stdout":
        raise UsageError(
            "several processes cannot share stdout: their lines would mix",
            advice="use --processes 1, or --publish none",
        )


def check_executor(consume: ConsumeSettings) -> None:
    """Raise `SettingsError` for settings of the other executor, and for devices that no worker process can use."""
    if consume.executor == "processes":
        if consume.concurrency == "auto":
            raise SettingsError(
                "consume.concurrency auto is for threads, and consume.executor is processes",
                key="consume.concurrency",
                advice="set the number of processes with --workers",
            )
        assigned(consume, concurrency(consume, in_batches=False), os.environ)
        return
    of_processes = {
        "consume.workers": consume.workers,
        "consume.devices": consume.devices,
        "consume.max_tasks_per_worker": consume.max_tasks_per_worker,
        "consume.worker_memory_bytes": consume.worker_memory_bytes,
    }
    if key := next((key for key, value in of_processes.items() if value), None):
        raise SettingsError(
            f"{key} is for worker processes, and consume.executor is threads",
            key=key,
            advice="use --executor processes, or leave it out",
        )


def check_queues(settings: Settings) -> None:
    """Raise `SettingsError` where a consumer would take its own dead letters, or those of a replay, as events."""
    for source in weighted_queues.names(settings.broker.queue):
        _check_queue(source, settings.deadletter.queue, brokers.conventions(settings.broker.url).covers)
    check_retry_topics(settings)


def check_retry_topics(settings: Settings) -> None:
    """Raise `SettingsError` for retry topics that cannot be used."""
    waits = settings.deadletter.retry_topics
    if not waits:
        return
    known = brokers.adapter(settings.broker.url)
    if not known.CAPABILITIES.log:
        raise SettingsError(
            f"deadletter.retry_topics is for Kafka, and broker.url is {registry.scheme(settings.broker.url)}://",
            key="deadletter.retry_topics",
            advice="leave it out; consume.max_attempts and consume.retry_max_s say how often and when events are tried",
        )
    delays = [delay for queue in weighted_queues.parse(settings.broker.queue) for delay in _delays(queue, waits)]
    taken = {settings.deadletter.queue, *weighted_queues.names(settings.broker.queue)}
    for delay in delays:
        if delay.queue in taken or not delay.wait_s or not known.CONVENTIONS.is_queue(delay.queue):
            raise _no_retry_topic(f"{delay.queue} cannot be a retry topic: its wait is 0, or it is used already")
        taken.add(delay.queue)


def _delays(queue: WeightedQueue, waits: Sequence[str]) -> list[Delay]:
    try:
        return delays_of(queue, waits)
    except UsageError as error:
        raise _no_retry_topic(error.what) from None


def _no_retry_topic(what: str) -> SettingsError:
    return SettingsError(
        f"deadletter.retry_topics: {what}", key="deadletter.retry_topics", advice='write for example ["30s", "5m"]'
    )


def _check_queue(source: str, dead: str, covers: Callable[[str, str], bool]) -> None:
    if source == dead:
        raise _loop(f"broker.queue and deadletter.queue are both {source}: each failure would be consumed again")
    if covers(source, dead):
        raise _loop(f"broker.queue {source} covers deadletter.queue {dead}: each failure would be consumed again")
    for beside in companions.beside(dead):
        if covers(source, beside):
            raise _loop(f"broker.queue {source} covers {beside}, where replay-dlq keeps letters of {dead} for a while")
    if dead in companions.beside(source):
        raise _loop(f"deadletter.queue {dead} is where replay-dlq keeps letters of {source} for a while")


def _loop(what: str) -> SettingsError:
    return SettingsError(
        what, key="deadletter.queue", advice="choose a --dlq outside of it, or name the queues to consume"
    )


def with_replies_alone(loaded: Loaded) -> Settings:
    """Return the settings. A consumer that replies publishes only where it is told to: by a mode, or a Phoenix URL."""
    settings, origins = loaded.settings, loaded.origins
    if settings.consume.reply and {origins["publish.mode"], origins["phoenix.url"]} == {"default"}:
        return replace(settings, publish=replace(settings.publish, mode="none"))
    return settings


Write = Callable[[Sequence[bytes]], None]


class ConsumerApp:
    """One consumer in this process: built, run once, closed.

    Either `run` it in the calling thread, or `start` it in a thread of its own and `join` it later. `observers` are
    called with each signal (`infertool.telemetry.signals`) from the consumer's threads: they must be quick and must
    not raise. `write` takes the documents when `publish.mode` is "stdout"; without it they are lines on `sys.stdout`.
    Log lines go to the logger "infertool". Raises `SettingsError` for a broker URL that cannot be used, and for a
    name that cannot be a queue's.
    """

    def __init__(
        self,
        settings: Settings,
        until: Until | None = None,
        *,
        observers: Sequence[Observe] = (),
        write: Write | None = None,
    ) -> None:
        self._settings = brokers.with_full_names(anchored(settings))
        self._until = until or Until()
        self._write = write
        self._stats = Stats(detailed=settings.is_detailed)
        log_observer = logs.LogObserver()
        self._observe = fan_out([self._stats, *observers, log_observer])
        self._resources = ExitStack()
        self._resources.callback(log_observer.close)
        self._cold_model: LoadedModel | None = None
        self._worker_pool: WorkerPool | None = None
        self._consumer: Consumer | None = None
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._thread_error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def load(self) -> None:
        """Load the model, once, or start the worker processes, which also warm it up. Raises `ModelLoadError`."""
        if self._worker_pool is None:
            with self._closed_on_error():
                self._worker_pool = self._make_worker_pool()

    def warm_up(self) -> None:
        """Load the model and warm it up, once. Raises `ModelLoadError`."""
        self.load()
        model, self._cold_model = self._cold_model, None
        if model:
            with self._closed_on_error():
                loader.warm_up(model)

    def run(self) -> None:
        """Consume until `stop`, or until the run ends by itself (`until`). Raises the error that ended it early."""
        self.warm_up()
        assert self._worker_pool is not None  # noqa: S101  (`warm_up` has made it)
        self._consumer = self._make_consumer(self._worker_pool)
        if self._failure:
            self._consumer.fail(self._failure)
        if self._stopping:
            self._consumer.stop()
        self._consumer.run()

    def start(self) -> None:
        """Warm the model up in the calling thread, then `run` in a thread of its own. Raises `ModelLoadError`."""
        self.warm_up()
        self._thread = threading.Thread(target=self._run_in_thread, name="consumer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End gracefully: take no more events, finish those begun. Returns at once; safe in a signal handler."""
        self._stopping = True
        if self._consumer:
            self._consumer.stop()

    def fail(self, error: BaseException) -> None:
        """End because of `error`, which `run` or `join` raises."""
        self._failure = self._failure or error
        if self._consumer:
            self._consumer.fail(error)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of a started consumer; False after `timeout_s`. Raises the error that ended it early."""
        if self._thread:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
        error, self._thread_error = self._thread_error, None
        if error:
            raise error
        return True

    def close(self) -> None:
        """Stop, wait for the end, and close the model. Raises the error that ended a started consumer early."""
        self.stop()
        try:
            self.join()
        finally:
            self._resources.close()

    def snapshot(self) -> Snapshot:
        """Return the figures now."""
        return self._stats.snapshot()

    def report(self) -> Report:
        """Return the figures now, in a form that can be summed up with those of other processes."""
        return self._stats.report()

    @property
    def in_batches(self) -> bool:
        """True if the model is called with several events. Known once it is loaded."""
        return self._worker_pool is not None and self._worker_pool.in_batches

    @property
    def stopping(self) -> bool:
        """True once `stop` was called."""
        return self._stopping

    def reports(self) -> tuple[list[Report], list[Report]]:
        """Return the figures now as `infertool.telemetry.stats_builder.Reporting` asks: of this one process."""
        report = self.report()
        return [report], [report]

    def _write_documents(self, documents: Sequence[bytes]) -> None:
        """Call `write`. What it raises ends the run; the documents are not confirmed."""
        assert self._write is not None  # noqa: S101  (the publisher was made for it)
        try:
            self._write(documents)
        except OSError:
            raise  # the consumer ends by itself
        except Exception as error:
            self.fail(error)
            raise OSError(str(error)) from error

    def _run_in_thread(self) -> None:
        try:
            self.run()
        except BaseException as error:  # noqa: BLE001  (`join` raises it)
            self._thread_error = error

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._resources.close()
            raise

    def _make_worker_pool(self) -> WorkerPool:
        consume = self._settings.consume
        in_batches: bool | None = asks_for_batches(consume)
        if not in_batches and consume.batch_size == "auto" and consume.concurrency != "auto":
            in_batches = None  # if the model can; concurrency that adapts is for single events
        if consume.executor == "processes":
            model = self._settings.model
            config = WorkerConfig(model, in_batches, consume.max_tasks_per_worker, consume.worker_memory_bytes)
            count = concurrency(consume, in_batches=False)
            devices = assigned(consume, count, os.environ)
            processes = Processes(config, count, lambda text: self._observe(Warned(text)), devices)
            return self._resources.enter_context(processes)
        return Threads(self._model(self._settings.model), in_batches=in_batches)

    def _model(self, settings: ModelSettings) -> LoadedModel:
        model = open_model(settings, lambda *change: self._observe(Circuit(*change)))
        self._resources.callback(_close, model)
        self._cold_model = model
        return model

    def _make_consumer(self, worker_pool: WorkerPool) -> Consumer:
        settings = self._settings
        name = f"{socket.gethostname()}:{os.getpid()}"
        consumer = Consumer(
            settings,
            worker_pool,
            open_broker=lambda on_connection: brokers.open(settings.broker, name=name, on_connection=on_connection),
            publisher=self._publisher(),
            name=name,
            state_dir=state_dir(os.environ, settings.consume.state_dir),
            observe=self._observe,
            until=self._until,
        )
        if settings.telemetry.traces == "otlp" and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true":
            consumer.record(self._spans())
        return consumer

    def _spans(self) -> Exporter:
        from infertool.telemetry.otlp import SpanExporter  # noqa: PLC0415  (it imports OpenTelemetry: 0.3 s)

        return SpanExporter(
            "infertool",
            warn=lambda text: self._observe(Warned(text)),
            on_dropped=lambda count: self._observe(SpansDropped(count)),
        )

    def _publisher(self) -> Publisher[Published]:
        match self._settings.publish.mode:
            case "stdout":
                return LocalPublisher(
                    "standard output", self._write_documents if self._write else Lines(sys.stdout.buffer)
                )
            case "none":
                return LocalPublisher("null", discard)
            case "phoenix":
                return PhoenixPublisher(self._settings.phoenix, self._settings.publish, self._observe)


def _close(model: LoadedModel) -> None:
    """Close the model, for at most `CLOSE_S`: the process must end, whatever the model waits for."""

    def close() -> None:
        try:
            model.close()
        except BaseException as error:  # noqa: BLE001  (a model may raise anything; all events are settled)
            logs.log.warning("closing model %s failed: %s: %s", model.name, type_of(error), text_of(error))

    thread = threading.Thread(target=close, name="model-close", daemon=True)
    thread.start()
    thread.join(CLOSE_S)
    if thread.is_alive():
        logs.log.warning("model %s has not closed within %.0f s; it is not waited for", model.name, CLOSE_S)
