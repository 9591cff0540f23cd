"""One run of `infertool demo`: starts and stops servers, a consumer and a producer, and shows the events."""

from __future__ import annotations

import math
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any

import orjson

from infertool import brokers
from infertool.channels.event import ChannelEvent
from infertool.cli.common import console, eventlines
from infertool.cli.common.gateway import CURL, GatewayProcess, is_possible
from infertool.cli.common.signals import stopped_by_signals
from infertool.embedded import processes
from infertool.errors import InfertoolError, OutputError
from infertool.hangup import tolerant
from infertool.load.arrivals import Planned
from infertool.load.headers import EnvelopeOptions
from infertool.load.options import LoadOptions
from infertool.load.record import Run, Second
from infertool.load.run import Listeners, LoadRun
from infertool.load.tally import Measure, Tally
from infertool.settings import BrokerSettings, PhoenixSettings, Settings
from infertool.telemetry.latencies import Latencies, Percentiles
from infertool.text.sanitize import clean
from infertool.workers.process import Process

if TYPE_CHECKING:
    from rich.console import RenderableType


REFRESH_PER_S = 8
ROWS = 12


class View:
    """Shows events. `add` and `second` may be called from any thread."""

    def __init__(self, *, silent: bool) -> None:
        self._latest = Percentiles()
        self._silent = silent
        self._live = not silent and console.on_terminal()
        self._results: deque[str] = deque(maxlen=ROWS)
        self._alerts: deque[str] = deque(maxlen=ROWS // 3)
        self._lock = threading.Lock()

    def add(self, event: ChannelEvent) -> None:
        """Show one event."""
        if self._silent:
            return
        if not self._live:
            console.out(eventlines.line(event))
            return
        line = clean(f"{eventlines.clock(event.at)}  {eventlines.gist(event)}")
        with self._lock:
            (self._results if event.event == "new_result" else self._alerts).append(line)

    def second(self, second: Second) -> None:
        """Show the latencies of a second."""
        self._latest = second.latency_ms.get(Measure.E2E, self._latest)

    @contextmanager
    def shown(self, dashboard: str, tally: Tally) -> Iterator[None]:
        """Show the view while the block runs."""
        if not self._silent:
            console.err(f"dashboard: {dashboard}   (Ctrl-C ends early)")
        if not self._live:
            yield
            return
        from rich.console import Console
        from rich.live import Live

        terminal = Console(file=tolerant(sys.stdout))
        with Live(
            console=terminal, get_renderable=lambda: self._render(tally), refresh_per_second=REFRESH_PER_S,
        ):  # fmt: skip
            yield

    def _render(self, tally: Tally) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        with self._lock:
            results, alerts = list(self._results), list(self._alerts)
        totals, times = tally.totals(), self._latest
        sent, came = totals["sent"], totals["results"] + totals["failures"]
        counts = f"{sent} sent, {totals['results']} results, {totals['failures']} failures, {sent - came} in progress"
        return Group(
            _panel("results", results, ROWS, "green"),
            _panel("alerts", alerts, ROWS // 3, "red"),
            Text(f"{counts}; from send to screen in the last second p50 {_ms(times.p50)}, p99 {_ms(times.p99)}"),
        )


def _panel(title: str, lines: list[str], rows: int, colour: str) -> RenderableType:
    from rich.panel import Panel
    from rich.text import Text

    text = Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
    return Panel(text, title=title, title_align="left", height=rows + 2, border_style=colour)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


HOST = "127.0.0.1"
# The mean time of the simulated model (seconds), and a factor for bursts.
MODEL_MEAN_S, HEADROOM = 0.3, 2.0
# Maximum time until the last events are seen. Seconds.
SETTLE_S = 20.0
CONSUMER_START_S = 20.0
CONSUMER_STOP_S = 30.0
POLL_S = 0.1


class Demo:
    """One run of `infertool demo`."""

    def __init__(
        self,
        *,
        seconds: float,
        rate: float,
        metrics: str | None,
        as_json: bool,
        quiet: bool,
        has_gateway: bool,
        gateway_port: int | None,
    ) -> None:
        self._seconds = seconds
        self._rate = rate
        self._has_gateway = has_gateway
        self._gateway_port = gateway_port
        self._metrics = metrics
        self._quiet = quiet
        self._as_json = as_json
        self._view = View(silent=as_json or quiet)
        self._load: LoadRun | None = None
        self._stopping = threading.Event()
        self._gone: BrokenPipeError | OutputError | None = None

    def run(self) -> None:
        """Run to the end and print the summary. Raises `InfertoolError` if events were lost."""
        with ExitStack() as stack:
            stack.enter_context(stopped_by_signals(self._stop, "stopping: waiting for the events that were sent"))
            broker = self._server(stack, processes.BROKER)
            hub = self._server(stack, processes.CHANNEL_SERVER)
            settings = Settings(
                broker=BrokerSettings(url=f"stomp://{HOST}:{broker.port}"),
                phoenix=PhoenixSettings(url=f"ws://{HOST}:{hub.port}/socket/websocket"),
            )
            gateway = self._gateway(stack, settings)
            consumer = self._consumer(stack, settings)
            self._announce(consumer)
            if gateway:
                url = gateway.wait_ready()
                self._tell(f"gateway: curl {url}/predict {CURL}")
            load = self._load = self._prepared(settings)
            with self._view.shown(f"http://{HOST}:{hub.port}/", load.tally):
                await_consumer(settings.broker, lambda: self._check(consumer), self._stopping)
                done = self._run(load, consumer)
            if self._gone:
                raise self._gone
            summary = _summary(done, _finish(consumer))
        self._print(summary)

    def _prepared(self, settings: Settings) -> LoadRun:
        options = LoadOptions(
            planned=Planned(qps=self._rate, duration_s=self._seconds, seed=secrets.randbits(32)),
            envelope=EnvelopeOptions(settings.broker.queue, broker_url=settings.broker.url),
            e2e=True,
            settle_s=SETTLE_S,
        )
        return LoadRun(settings, options, Listeners(on_second=self._view.second, on_events=self._show), {})

    def _run(self, load: LoadRun, consumer: Process) -> Run:
        """Send events and wait for their results. Raises InfertoolError if the consumer dies."""
        over = threading.Event()

        def guard() -> None:
            while not over.wait(POLL_S):
                if consumer.has_ended() or self._gone:
                    load.abandon()
                    return

        guarding = threading.Thread(target=guard, name="demo-guard", daemon=True)
        guarding.start()
        try:
            if self._stopping.is_set():
                load.stop()
            return load.run()
        finally:
            over.set()
            guarding.join()
            if not self._gone:
                self._check(consumer)

    def _stop(self) -> None:
        self._stopping.set()
        if self._load:
            self._load.stop()

    def _show(self, arrivals: Sequence[ChannelEvent]) -> None:
        try:
            for arrival in arrivals:
                self._view.add(arrival)
        except (BrokenPipeError, OutputError) as error:  # this is the socket's thread; the run ends in its own
            self._gone = error

    def _server(self, stack: ExitStack, module: str) -> processes.ServerProcess:
        server = processes.start(module, host=HOST, port=0, env=environment())
        stack.callback(server.stop)
        return server

    def _gateway(self, stack: ExitStack, settings: Settings) -> GatewayProcess | None:
        if not self._has_gateway or not is_possible(quiet=self._quiet):
            return None
        gateway = GatewayProcess(settings.broker.url, host=HOST, port=self._gateway_port, env=environment())
        stack.callback(gateway.stop)
        return gateway

    def _consumer(self, stack: ExitStack, settings: Settings) -> Process:
        concurrency = max(16, math.ceil(self._rate * MODEL_MEAN_S * HEADROOM))
        self._log = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (the stack closes it)
        consumer = Process(
            "infertool", "--config", os.devnull, "--quiet", "consume",
            "--broker", settings.broker.url, "--phoenix", settings.phoenix.url, "--model", "sim:",
            "--max-attempts", 1, "--concurrency", concurrency, "--reply", "--publish", "phoenix", "-o", "json",
            *([] if self._metrics is None else ["--metrics", self._metrics]),
            stdout=subprocess.PIPE, stderr=self._log, env=environment(),
        )  # fmt: skip
        stack.callback(consumer.discard)
        return consumer

    def _announce(self, consumer: Process) -> None:
        """Tell where the consumer's metrics are, which is the first line that it prints."""
        if self._metrics is None:
            return
        ready = consumer.stdout.readline()
        if not ready:
            consumer.wait_end(CONSUMER_STOP_S)
            self._check(consumer)
        self._tell(f"metrics, health and stats: {orjson.loads(ready)['url']} (/metrics, /livez, /readyz, /stats)")

    def _tell(self, line: str) -> None:
        if not self._quiet:
            console.err(line)

    def _check(self, consumer: Process) -> None:
        if consumer.has_ended():
            raise InfertoolError(f"the consumer ended early: {last_words(self._log)}")

    def _print(self, summary: dict[str, Any]) -> None:
        if self._as_json:
            console.emit_json(summary)
        else:
            console.out(
                "{sent} sent = {results} results + {failures} failures ({dead_letters} dead letters), {lost} lost, "
                "{duplicates} duplicates; from send to screen p50 {p50}, p99 {p99}".format(
                    **summary, p50=_ms(summary["p50_ms"]), p99=_ms(summary["p99_ms"])
                )
            )
        if summary["lost"]:
            raise InfertoolError(f"{summary['lost']} events were not seen within {SETTLE_S:g} s")


def await_consumer(
    settings: BrokerSettings, check: Callable[[], None], stopping: threading.Event | None = None
) -> None:
    """Wait for the consumer's subscription, so that its start does not count as latency; `check` may raise."""
    stopping = stopping or threading.Event()
    broker = brokers.open(settings)
    broker.connect()
    deadline = time.monotonic() + CONSUMER_START_S
    try:
        while time.monotonic() < deadline and not stopping.wait(POLL_S):
            check()
            depth = broker.measure(settings.queue, 1.0)
            if depth is not None and depth.consumers:
                return
    finally:
        broker.close(5.0)


def last_words(log: IO[bytes]) -> str:
    """Return the last line of a log."""
    log.seek(0)
    return log.read().decode(errors="replace").strip().rpartition("\n")[2] or "without output"


def _summary(run: Run, consumed: dict[str, Any]) -> dict[str, Any]:
    counts, times = run.counts, run.histograms.get(Measure.E2E, Latencies()).percentiles()
    return {
        "sent": counts.sent,
        "results": counts.results,
        "failures": counts.failures,
        "dead_letters": consumed["dead_lettered"],
        "lost": None if counts.lost is None else counts.lost + (counts.queued or 0),
        "duplicates": counts.duplicates,
        "p50_ms": times.p50,
        "p99_ms": times.p99,
    }


def environment() -> dict[str, str]:
    """Return the environment without the settings and credentials of a real bus."""
    named = {"ACTIVEMQ_USER", "ACTIVEMQ_PASSWORD", "PHOENIX_SERVICE_TOKEN"}
    return {k: v for k, v in os.environ.items() if k not in named and not k.startswith("INFERTOOL_")}


def _finish(consumer: Process) -> dict[str, Any]:
    consumer.terminate()
    if not consumer.wait_end(CONSUMER_STOP_S):
        raise InfertoolError(f"the consumer did not stop within {CONSUMER_STOP_S:g} s")
    with consumer.stdout as stdout:
        summary: dict[str, Any] = orjson.loads(stdout.read())
    return summary
