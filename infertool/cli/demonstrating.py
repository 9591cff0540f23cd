"""The demo: servers, a consumer, a producer and a viewer, started in order and stopped in order."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import orjson

from infertool import brokers
from infertool.brokers.port import Broker
from infertool.cli import console
from infertool.cli.demoview import View
from infertool.cli.signals import stopped_by_signals
from infertool.devserver import processes
from infertool.errors import InfertoolError
from infertool.feed.arrival import Arrival
from infertool.feed.topics import TopicFeed
from infertool.load.book import SendBook
from infertool.load.producer import Producer
from infertool.settings import BrokerSettings, PhoenixSettings

HOST = "127.0.0.1"
# The simulated model's mean time, and room for bursts and retries.
MODEL_MEAN_S, HEADROOM = 0.3, 2.0
# Longest time the last events may take: three tries of the model with their backoff, and dead-lettering.
SETTLE_S = 20.0
CONSUMER_START_S = 20.0
CONSUMER_STOP_S = 30.0
POLL_S = 0.1


class Demo:
    """One run of `infertool demo`."""

    def __init__(self, *, seconds: float, rate: float, as_json: bool, quiet: bool) -> None:
        self._seconds = seconds
        self._rate = rate
        self._as_json = as_json
        self._book = SendBook()
        self._view = View(self._book, silent=as_json or quiet)
        self._stopping = False
        self._gone: BrokenPipeError | None = None

    def run(self) -> None:
        """Run to the end and print the summary. Raises `InfertoolError` when the sums do not add up."""
        with ExitStack() as stack:
            stack.enter_context(stopped_by_signals(self._stop, "stopping: waiting for what was sent"))
            broker = self._server(stack, processes.BROKER)
            hub = self._server(stack, processes.HUB)
            stomp = BrokerSettings(url=f"stomp://{HOST}:{broker.port}")
            phoenix = PhoenixSettings(url=f"ws://{HOST}:{hub.port}/socket/websocket")
            self._watch(stack, phoenix)
            consumer = self._consumer(stack, stomp, phoenix)
            with self._view.shown(f"http://{HOST}:{hub.port}/"):
                self._produce(stomp, consumer)
            if self._gone:
                raise self._gone
            summary = self._summary(_finish(consumer))
        self._print(summary)

    def _stop(self) -> None:
        self._stopping = True

    def _server(self, stack: ExitStack, module: str) -> processes.ServerProcess:
        server = processes.start(module, host=HOST, port=0, env=_environment())
        stack.callback(server.stop)
        return server

    def _watch(self, stack: ExitStack, settings: PhoenixSettings) -> None:
        topics = (settings.result_topic, settings.alert_topic)
        feed = TopicFeed(settings, topics, on_arrivals=self._on_arrivals, on_link=lambda _: None)
        feed.connect()
        stack.callback(feed.close, 1.0)

    def _on_arrivals(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            if isinstance(arrival.payload, dict):
                success = arrival.payload.get("status") == "SUCCESS"
                self._book.seen(str(arrival.payload.get("event_id")), success=success)
                self._show(arrival)

    def _show(self, arrival: Arrival) -> None:
        try:
            self._view.add(arrival)
        except BrokenPipeError as error:  # this is the socket's thread; the run ends in its own
            self._gone = error
            self._stop()

    def _consumer(self, stack: ExitStack, stomp: BrokerSettings, phoenix: PhoenixSettings) -> subprocess.Popen[bytes]:
        concurrency = max(16, math.ceil(self._rate * MODEL_MEAN_S * HEADROOM))
        command = [
            sys.executable, "-m", "infertool", "--config", os.devnull, "--quiet", "consume",
            "--broker", stomp.url, "--phoenix", phoenix.url, "--model", "sim:", "--max-attempts", "1",
            "--concurrency", str(concurrency), "-o", "json",
        ]  # fmt: skip
        self._log = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (the stack closes it)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True, env=_environment()
        )
        stack.callback(_end, process)
        return process

    def _produce(self, stomp: BrokerSettings, consumer: subprocess.Popen[bytes]) -> None:
        broker = brokers.open(stomp)
        broker.connect()
        try:
            self._await_consumer(broker, stomp.queue, consumer)
            producer = Producer(broker, self._book, queue=stomp.queue, rate=self._rate, seconds=self._seconds)
            producer.start()
            while producer.is_alive():
                producer.join(POLL_S)
                if self._stopping:
                    producer.stop()
                self._check(consumer)
            if not self._gone:
                self._book.wait_complete(SETTLE_S)
        finally:
            broker.close(5.0)

    def _await_consumer(self, broker: Broker, queue: str, consumer: subprocess.Popen[bytes]) -> None:
        """Wait for the consumer's subscription, so that its start is not taken for the bus's latency."""
        deadline = time.monotonic() + CONSUMER_START_S
        while time.monotonic() < deadline and not self._stopping:
            self._check(consumer)
            depth = broker.measure(queue, 1.0)
            if depth is not None and depth.consumers:
                return
            time.sleep(POLL_S)

    def _check(self, consumer: subprocess.Popen[bytes]) -> None:
        if consumer.poll() is not None:
            self._log.seek(0)
            last_words = self._log.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise InfertoolError(f"the consumer ended early: {last_words or 'without a word'}")

    def _summary(self, consumed: dict[str, Any]) -> dict[str, Any]:
        tally = self._book.tally()
        return {
            "sent": tally.sent,
            "results": tally.results,
            "failures": tally.failures,
            "dead_letters": consumed["dead_lettered"],
            "lost": tally.lost,
            "duplicates": tally.duplicates,
            "p50_ms": tally.latency_ms.p50,
            "p99_ms": tally.latency_ms.p99,
        }

    def _print(self, summary: dict[str, Any]) -> None:
        if self._as_json:
            console.emit_json(summary)
        else:
            console.out(
                "{sent} sent = {results} results + {failures} failures ({dead_letters} dead letters), {lost} lost, "
                "{duplicates} duplicates; from send to screen p50 {p50_ms} ms, p99 {p99_ms} ms".format(**summary)
            )
        if summary["lost"]:
            raise InfertoolError(f"{summary['lost']} events were not seen within {SETTLE_S:g} s")


def _environment() -> dict[str, str]:
    """Return our environment without what would bend the demo: settings and credentials meant for a real bus."""
    named = {"ACTIVEMQ_USER", "ACTIVEMQ_PASSWORD", "PHOENIX_SERVICE_TOKEN"}
    return {k: v for k, v in os.environ.items() if k not in named and not k.startswith("INFERTOOL_")}


def _finish(consumer: subprocess.Popen[bytes]) -> dict[str, Any]:
    consumer.terminate()
    output, _ = consumer.communicate(timeout=CONSUMER_STOP_S)
    summary: dict[str, Any] = orjson.loads(output)
    return summary


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
