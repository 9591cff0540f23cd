"""The endpoint of a running consumer: metrics, health, stats, and how many consumers a backlog needs."""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

import orjson

import infertool
from infertool import brokers
from infertool.app.alerting import Alerting
from infertool.brokers import weighted_queues
from infertool.consumer.tuning import asks_for_batches, concurrency
from infertool.errors import ListenError, UsageError
from infertool.net.http_server import HttpServer, Request, Response, Route
from infertool.secret import mask_spec
from infertool.settings import Settings
from infertool.settings.load import state_dir
from infertool.telemetry import health
from infertool.telemetry.endpoint import health_response, json_response, metrics_response
from infertool.telemetry.health import Condition
from infertool.telemetry.metrics import Figures, collect
from infertool.telemetry.stats import Report
from infertool.telemetry.stats_builder import Identity, Now, Reporting, StatsBuilder
from infertool.telemetry.stats_document import StatsDocument
from infertool.text.input import parse_duration, parse_listen_address

# Time between two samples. Seconds.
SAMPLE_S: Final = 1.0
_DEFAULT_TARGET_S: Final = 30.0
_LONGEST_SILENCE_S: Final = 30 * 86_400.0


class Monitor:
    """Samples the figures of a consumer once a second, serves them at `telemetry.metrics`, and evaluates alert rules.

    With `listens` False somebody else serves what `collect`, `live` and `ready` return.
    Raises `ListenError` where it cannot listen, and `SettingsError` or `ConditionError` for a wrong rule or sink.
    """

    def __init__(self, settings: Settings, source: Reporting, *, listens: bool = True) -> None:
        self._settings = settings
        self._source = source
        folder = state_dir(os.environ, settings.consume.state_dir)
        self._builder = StatsBuilder(source, _identity(settings), folder, settings.telemetry.stuck_after_s)
        self._started_up = False
        self._stopped = threading.Event()
        self._sampled = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._alerting = Alerting(settings, self.document) if settings.has_alerts else None
        self._server: HttpServer | None = None
        if settings.telemetry.metrics and listens:
            host, port = parse_listen_address(settings.telemetry.metrics)
            posts = {"/alerts/silence": self._silence} if self._alerting else {}
            try:
                self._server = HttpServer(host, port, self._routes(), posts=posts, name="metrics-http")
            except ListenError:
                if self._alerting:
                    self._alerting.close()
                raise

    @property
    def address(self) -> str:
        """Host and port that it listens on; empty where it does not."""
        return self._server.address if self._server else ""

    @property
    def port(self) -> int:
        """The port that it listens on; 0 where it does not."""
        return self._server.port if self._server else 0

    def document(self) -> StatsDocument:
        """Return the stats document, which is up to a second old."""
        return self._builder.document

    def start(self) -> None:
        """Start to sample and to serve."""
        self._thread.start()
        if self._alerting:
            self._alerting.start()
        if self._server:
            self._server.start()

    def close(self) -> None:
        """Stop serving."""
        self._stopped.set()
        if self._server:
            self._server.close()
        if self._alerting:
            self._alerting.close()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(SAMPLE_S):
            self._builder.sample(self._alerting.states if self._alerting else ())
            with self._sampled:
                self._sampled.notify_all()

    def _routes(self) -> Mapping[str, Route]:
        return {
            "/metrics": self._metrics,
            "/livez": lambda request: health_response(self.live(), request),
            "/readyz": lambda request: health_response(self.ready(), request),
            "/startupz": lambda request: health_response(self._startup(), request),
            "/stats": lambda _request: json_response(self.document()),
            "/stats/stream": lambda _request: Response(self._stream(), "text/event-stream"),
            "/scale": self._scale,
        }

    def _metrics(self, request: Request) -> Response:
        return metrics_response(self.collect(), request)

    def collect(self) -> Iterator[Any]:
        """Yield the metrics."""
        now = self._builder.now()
        figures = Figures(
            document=self.document(),
            snapshot=now.snapshot,
            details=now.details,
            cpu_seconds=self._builder.cpu_seconds,
            caches=bool(self._settings.model.cache),
            live=health.all_ok(self.live(now)),
            ready=health.all_ok(self.ready(now)),
            notifications_dropped=self._alerting.dropped if self._alerting else {},
        )
        return collect(figures)

    def live(self, now: Now | None = None) -> list[Condition]:
        """Return the conditions that only a restart cures."""
        now = now or self._builder.now()
        stuck_after_s = self._settings.telemetry.stuck_after_s
        return _of_processes(now, lambda report: health.live(report, now.at, stuck_after_s), ok=True)

    def ready(self, now: Now | None = None) -> list[Condition]:
        """Return the conditions under which events are taken."""
        now = now or self._builder.now()
        publishes, stopping = self._settings.publish.mode == "phoenix", self._source.stopping
        found = _of_processes(
            now, lambda report: health.ready(report, publishes=publishes, stopping=stopping), ok=False
        )
        self._started_up = self._started_up or health.all_ok(found)
        return found

    def _startup(self) -> list[Condition]:
        found = self.ready()
        if self._started_up:
            return [Condition("started", ok=True, value="yes")]
        return [Condition("started", ok=False, value="not yet"), *found]

    def _stream(self) -> Iterator[bytes]:
        """Yield each new document as a server-sent event."""
        while not self._stopped.is_set():
            yield b"event: stats\ndata: " + orjson.dumps(self.document()) + b"\n\n"
            with self._sampled:
                self._sampled.wait(2 * SAMPLE_S)

    def _scale(self, request: Request) -> Response:
        try:
            target_s = parse_duration(request.query["target"], "target") if "target" in request.query else None
        except UsageError as error:
            return _refused(str(error), HTTPStatus.BAD_REQUEST)
        document, target_s = self.document(), target_s or _DEFAULT_TARGET_S
        return json_response(scale(document, target_s, self._calls(document), self._builder.events_a_call))

    def _silence(self, request: Request) -> Response:
        """Let a rule tell nobody: `{"rule": NAME, "seconds": N}`."""
        try:
            given = orjson.loads(request.body)
            name, seconds = str(given["rule"]), float(given["seconds"])
        except (ValueError, KeyError, TypeError):
            return _refused('write {"rule": NAME, "seconds": N}', HTTPStatus.BAD_REQUEST)
        if not 0 <= seconds <= _LONGEST_SILENCE_S:
            return _refused("a silence lasts at most 30 days", HTTPStatus.BAD_REQUEST)
        try:
            if self._alerting:
                self._alerting.silence(name, seconds)
        except UsageError as error:
            return _refused(str(error), HTTPStatus.NOT_FOUND)
        return json_response({"rule": name, "seconds": seconds})

    def _calls(self, document: StatsDocument) -> int:
        """Return the number of calls of the model that this consumer makes at the same time."""
        consume = self._settings.consume
        in_batches = asks_for_batches(consume) or document.model.batch_size is not None
        return concurrency(consume, in_batches=in_batches) * consume.processes


def scale(document: StatsDocument, target_s: float, calls: int, events_a_call: float = 1.0) -> dict[str, Any]:
    """Return how many consumers like this one are `desired` to empty the queue within `target_s`.

    They must take what comes and what waits; and as many as hold what is unacked go on, so that no work is cut off.
    A consumer makes `calls` calls of the model at the same time, each for `events_a_call` events. An event keeps one of
    them busy for `service_s` on average.
    """
    queue, settled = document.queue, document.rate.settled
    backlog, unacked = queue.depth or 0, queue.unacked
    if unacked is None:
        unacked = document.window.in_progress
    service_s = _service_s(document, calls, events_a_call)
    arrivals = document.rate.received if queue.arrival_rate is None else queue.arrival_rate
    needed = 0.0 if service_s is None else (arrivals + backlog / target_s) * service_s / calls
    held = math.ceil(unacked / document.window.limit) if document.window.limit else int(unacked > 0)
    # Without a call so far nothing is known but that there is work.
    least = max(held, int(backlog > 0))
    return {
        "desired": max(math.ceil(round(needed, 6)), least),
        "backlog": queue.depth,
        "unacked": unacked,
        "arrival_rate": arrivals,
        "service_s": service_s,
        "drain_s": queue.drain_s,
        "target_s": target_s,
        "settled_rate": settled,
    }


def _service_s(document: StatsDocument, calls: int, events_a_call: float) -> float | None:
    """Return the time that an event keeps one of the calls busy.

    It is its share of the median of the model's calls. Where the window is full the rate tells more: it includes all
    else.
    """
    window, settled = document.window, document.rate.settled
    if window.limit and window.in_progress >= window.limit and settled > 0:
        return calls / settled
    median_ms = document.latency.inference.p50_ms
    return None if median_ms is None else median_ms / 1000 / events_a_call


@contextmanager
def monitored(settings: Settings, source: Reporting) -> Iterator[Monitor | None]:
    """Serve the figures of `source`, and evaluate alert rules, while the block runs; if the settings ask for either."""
    if not settings.is_detailed:
        yield None
        return
    monitor = Monitor(settings, source)
    try:
        monitor.start()
        yield monitor
    finally:
        monitor.close()


def _identity(settings: Settings) -> Identity:
    conventions = brokers.conventions(settings.broker.url)
    return Identity(
        consumer=f"{socket.gethostname()}:{os.getpid()}",
        version=infertool.__version__,
        queue=weighted_queues.spelled(settings.broker.queue, conventions.short),
        dead_letter_queue=conventions.short(settings.deadletter.queue),
        model=mask_spec(settings.model.spec),
    )


def _of_processes(now: Now, conditions: Callable[[Report], list[Condition]], *, ok: bool) -> list[Condition]:
    """Return the conditions of all running processes; with several each name has the number of its process."""
    if not now.running:
        return [Condition("running", ok=ok, value="no process has reported yet")]
    if len(now.running) == 1:
        return conditions(now.running[0])
    return [
        Condition(f"{number}.{each.name}", each.ok, each.value)
        for number, report in enumerate(now.running, 1)
        for each in conditions(report)
    ]


def _refused(reason: str, status: HTTPStatus) -> Response:
    return json_response({"error": reason}, status)
