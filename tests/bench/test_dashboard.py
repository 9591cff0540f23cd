"""The dashboard page under load, in headless Chromium: its longest task, its CPU time, its size."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import websocket
from pytest_benchmark.fixture import BenchmarkFixture

from tests.bench.harness.fixtures import Row
from tests.js.dashboard import opened, wait
from tests.support.hub import HubProcess

STEADY, SECONDS = 500, 20
BURST = 10_000
LONGEST_MS = 200
MOST_ELEMENTS = 1_000
FAILURE_EVERY = 20
STEP_S = 0.02


class Pusher:
    """Pushes without waiting for replies, which another thread reads."""

    def __init__(self, hub: HubProcess) -> None:
        self._socket = websocket.create_connection(f"{hub.url}?vsn=2.0.0", suppress_origin=True)
        self._socket.send('["1","1","service:inference","phx_join",{}]')
        self._socket.recv()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._sent = 0

    def push(self, rate: int, seconds: float) -> None:
        begun, count = time.monotonic(), int(rate * seconds)
        for number in range(count):
            event, document = _event(self._sent + number)
            self._socket.send(json.dumps(["1", "2", "service:inference", event, document]))
            ahead_s = begun + number / rate - time.monotonic()
            if ahead_s > STEP_S:
                time.sleep(ahead_s)
        self._sent += count

    def close(self) -> None:
        self._socket.close()
        self._reader.join(5)

    def _read(self) -> None:
        try:
            while self._socket.recv():
                pass
        except (websocket.WebSocketException, OSError):
            return


def _event(number: int) -> tuple[str, dict[str, object]]:
    named = {"event_id": f"event-{number}", "request_id": f"req-{number:06}", "processing_ms": 100 + number % 400}
    if number % FAILURE_EVERY == 0:
        return "inference_failed", {**named, "error_type": "InferenceError", "error": "simulated", "status": "FAILED"}
    prediction = {"class": "ABC"[number % 3], "confidence": 0.5 + number % 50 / 100}
    payload = {"customer": number % 9, "features": [0.5] * 20, "text": "x" * 100}
    return "new_result", {**named, "prediction": prediction, "original_payload": payload, "status": "SUCCESS"}


@pytest.mark.browser
def test_load(benchmark: BenchmarkFixture, hub: HubProcess, row: Row, tmp_path: Path) -> None:
    figures: dict[str, dict[str, Any]] = {}

    def load() -> None:
        with opened(hub.http_url, tmp_path) as page:
            pusher = Pusher(hub)
            sent = 0
            for name, rate, seconds in (("steady", STEADY, SECONDS), ("burst", BURST, 1)):
                page.send("measure")
                page.wait_for("measuring")
                pusher.push(rate, seconds)
                sent += int(rate * seconds)
                wait(page, "#failures-total", f"{sent // FAILURE_EVERY:,}")
                page.send("measured")
                figures[name] = page.wait_for("measured")
            wait(page, "#results-total", f"{sent - sent // FAILURE_EVERY:,}")
            pusher.close()

    benchmark.pedantic(load, rounds=1)
    row(f"dashboard, {STEADY} events/s for {SECONDS} s", _words(figures["steady"]), f"no task over {LONGEST_MS} ms")
    row(f"dashboard, {BURST} events in a second", _words(figures["burst"]), "report")
    assert max(measured["elements"] for measured in figures.values()) < MOST_ELEMENTS


def _words(measured: dict[str, Any]) -> str:
    longest = f"{measured['longest']:.0f} ms" if measured["longest"] else "under 50 ms"
    return f"longest task {longest}, main thread {measured['cpu']:.0%} of a core, {measured['elements']} elements"
