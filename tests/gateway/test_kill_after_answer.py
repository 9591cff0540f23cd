"""kill -9 of a gateway right after an answer: what the answer says holds after the next start."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from infertool.gateway.store import FILE_NAME
from tests.gateway.test_http_command import ready
from tests.support.embedded import EmbeddedBroker
from tests.support.running import LONG, PATIENT_GATEWAY, Running


class Gateway:
    """A gateway without consumers."""

    def __init__(self, folder: Path, broker: str) -> None:
        self._folder = folder
        self._broker = broker
        self.start()

    def start(self) -> None:
        self.running = Running(
            self._folder, "gateway", "--listen", "0", "--broker", self._broker, "--queue", "gw.killed", "-o", "json",
            "--state-dir", str(self._folder / "state"), **PATIENT_GATEWAY,
        )  # fmt: skip
        self.url = ready(self.running)["url"]

    def kill(self) -> None:
        self.running.process.kill()
        self.running.process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def ask(self, key: str) -> httpx.Response:
        headers = {"prefer": "respond-async", "idempotency-key": key}
        answer = httpx.post(f"{self.url}/v1/infer", json={"key": key}, headers=headers, timeout=LONG)
        assert answer.status_code == 202, answer.text
        return answer

    def call(self, method: str, path: str) -> httpx.Response:
        return httpx.request(method, f"{self.url}{path}", timeout=LONG)

    def other_writer(self) -> sqlite3.Connection:
        """Return a connection that keeps the gateway from writing."""
        other = sqlite3.connect(self._folder / "state" / FILE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        return other


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    broker = EmbeddedBroker().start()
    made = Gateway(tmp_path / "gateway", broker.url)
    yield made
    made.running.kill()
    broker.stop()


def test_what_was_answered_holds_after_kill_9(gateway: Gateway) -> None:
    kept, given_up = gateway.ask("kept"), gateway.ask("given up")
    gateway.restart()
    # Its acceptance, and its idempotency key.
    assert gateway.ask("kept").headers["location"] == kept.headers["location"]
    path = given_up.headers["location"]

    with closing(gateway.other_writer()):
        # It cannot be stored, so nobody is told that it is.
        for _ in range(2):
            refused = gateway.call("DELETE", path)
            assert (refused.status_code, refused.json()["reason"]) == (503, "store_away")
            assert int(refused.headers["retry-after"]) == 1
        gateway.kill()
    gateway.start()
    assert gateway.call("GET", path).status_code == 202

    for _ in range(2):
        answer = gateway.call("DELETE", path)
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        gateway.restart()
        assert gateway.call("GET", path).json()["status"] == "cancelled"
    assert gateway.call("GET", kept.headers["location"]).status_code == 202
