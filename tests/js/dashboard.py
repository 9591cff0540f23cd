"""Opening the dashboard in headless Chromium, and a client that pushes to the hub it shows."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import websocket

from tests.js.node import NodeProgram
from tests.js.packages import BROWSER
from tests.support.hub import HubProcess
from tests.support.install import apt, npm
from tests.support.present import present


@contextmanager
def opened(url: str, profile: Path) -> Iterator[NodeProgram]:
    """Run the browser with an empty profile; yield it when the page of the hub at `url` is connected."""
    chromium = shutil.which("chromium")
    if not chromium:
        apt("chromium")
        chromium = shutil.which("chromium")
    with NodeProgram("browser.mjs", str(npm(BROWSER)), present(chromium), url, str(profile)) as program:
        program.wait_for("loaded")
        wait(program, "#state", "connected")
        yield program


def wait(page: NodeProgram, selector: str, text: str) -> None:
    page.send("wait", selector=selector, text=text)
    page.wait_for("shown", selector=selector, text=text)


def read(page: NodeProgram, expression: str) -> Any:
    page.send("read", expression=expression)
    return page.wait_for("value", expression=expression)["value"]


def stop_clock(page: NodeProgram) -> None:
    """Have no time pass for the page: a toast stays for 8 s, and a busy machine may take longer to look at it."""
    read(page, "(performance.now = () => 1e12) && true")


def until(page: NodeProgram, condition: str) -> None:
    """Wait until a JavaScript expression is true; the test's own time limit ends it."""
    while not read(page, condition):
        time.sleep(0.05)


class Service:
    """Pushes to the hub and waits for each reply."""

    def __init__(self, hub: HubProcess) -> None:
        self._socket = websocket.create_connection(f"{hub.url}?vsn=2.0.0", suppress_origin=True, timeout=120)
        self.push("phx_join", {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.close()

    def result(self, request_id: str, predicted: str = "A") -> None:
        prediction = {"class": predicted, "confidence": 0.875}
        self.push("new_result", {"request_id": request_id, "prediction": prediction, "processing_ms": 12.5})

    def failure(self, request_id: str, error: str, **more: str) -> None:
        failure = {"request_id": request_id, "error_type": "InferenceError", "error": error}
        self.push("inference_failed", failure | more)

    def alert(self, rule: str, state: str) -> None:
        self.push("alert", {"rule": rule, "state": state, "value": 7, "threshold": 5})

    def push(self, event: str, payload: object) -> None:
        self._socket.send(json.dumps(["1", "1", "service:inference", event, payload]))
        assert json.loads(self._socket.recv())[4]["status"] == "ok"
