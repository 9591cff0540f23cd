"""The whole app in tmux, with the embedded servers: a real consumer, real dead letters, a server that goes away."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.embedded import EmbeddedBroker
from tests.support.hub import HubProcess
from tests.support.rawstomp import RawStomp
from tests.support.running import Running, environment
from tests.support.tmux import Tmux

QUEUE = "/queue/ai.events.raw"
MODEL = """
from pathlib import Path
from infertool import InferenceError

def predict(payload):
    if payload.get("bad") and not Path("repaired").exists():
        raise InferenceError("\\x1b[31mno\\x1b[0m \\u202eway", retryable=False)
    return {"class": "A", "confidence": 0.75}
"""


class Bus:
    """A broker, a channel server and a consumer, and their settings file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub = HubProcess().start()
        self.broker = EmbeddedBroker().start()
        self.consumers: list[Running] = []
        (folder / "model.py").write_text(MODEL)
        (folder / "infertool.toml").write_text(
            f'[broker]\nurl = "{self.broker.url}"\n[phoenix]\nurl = "{self.hub.url}"\n'
            f'[model]\nspec = "{folder / "model.py"}:predict"\n[consume]\nstate_dir = "{folder}"\n'
            '[watch.keys]\nreplay = "R"\n'
        )
        self.config = f"--config={folder / 'infertool.toml'}"

    def consume(self) -> Running:
        self.consumers.append(Running(self.folder / "logs", self.config, "consume", "-o", "json"))
        return self.consumers[-1]

    def watch(self, *options: str, **size: int) -> Tmux:
        command = [sys.executable, "-m", "infertool", self.config, "watch", *options]
        env = {key: value for key, value in environment().items() if key not in {"NO_COLOR", "TMUX"}}
        # Some shells export the size of the terminal they were started in.
        env |= {"LANG": "C.UTF-8", "TERM": "xterm-256color", "COLUMNS": "70", "LINES": "20"}
        return Tmux(command, folder=self.folder, env=env, **size)

    def send(self, *events: dict[str, Any]) -> None:
        raw = RawStomp(self.broker.stomp_port)
        raw.send(QUEUE, (({"event_id": event["request_id"]}, json.dumps(event).encode()) for event in events))
        raw.close()

    def close(self) -> None:
        """End the servers, and the consumer that a failed test left behind."""
        for consumer in self.consumers:
            if consumer.process.poll() is None:
                consumer.kill()
        self.broker.stop()
        self.hub.stop()


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    monkeypatch.chdir(tmp_path)  # where the model looks for the repair
    made = Bus(tmp_path)
    yield made
    made.close()


def test_a_failure_is_spotted_looked_at_and_replayed(bus: Bus) -> None:
    consumer = bus.consume()
    with bus.watch() as terminal:
        terminal.wait("connected", "Waiting for results", "No failures")
        bus.send({"request_id": "good-1"}, {"request_id": "bad-1", "bad": True}, {"request_id": "good-2"})
        screen = terminal.wait("good-2", "bad-1", "66.7% ok", "3 in all", "dlq 1")
        assert "A " in screen
        assert "0.750" in screen
        assert r"InferenceError: \x1b[31mno\x1b[0m \u202eway" in screen
        terminal.press("Tab", "Enter")
        terminal.wait('"request_id": "bad-1"', '"status": "FAILED"')
        (bus.folder / "repaired").touch()
        terminal.press("R")
        terminal.wait("replay-dlq --id=bad-1 --yes")
        terminal.press("y")
        terminal.wait("replayed 1; 0 of 1 remain")
        terminal.wait("4 in all", "dlq 0")
        terminal.press("q")
        terminal.wait("exit code 0")
    consumer.terminate()
    consumer.finish()


def test_a_server_that_goes_away_leaves_a_gap_and_the_view_lives_on(bus: Bus) -> None:
    consumer = bus.consume()
    with bus.watch("--record", "seen.jsonl") as terminal:
        terminal.wait("connected", "Waiting for results")
        bus.send({"request_id": "before"})
        terminal.wait("before")
        bus.hub.kill()
        terminal.wait("lost", "again in")
        terminal.press("Space")
        terminal.wait("PAUSED")
        bus.hub.start()
        terminal.wait("connected")
        bus.send({"request_id": "after"})
        terminal.wait("waiting", "2 in all")
        terminal.press("Space")
        screen = terminal.wait("after", "events sent then are missing", "before")
        assert screen.index("after") < screen.index("not connected") < screen.index("before")
        terminal.resize(20, 5)
        terminal.wait("too small")
        terminal.resize(100, 30)
        terminal.wait("after")
        terminal.press("C-c")
        terminal.wait("exit code 0")
    consumer.terminate()
    consumer.finish()
    recorded = [json.loads(line) for line in (bus.folder / "seen.jsonl").read_text().splitlines()]
    assert [each["payload"]["request_id"] for each in recorded] == ["before", "after"]


def test_it_can_be_there_before_the_server(bus: Bus) -> None:
    bus.hub.stop()
    with bus.watch() as terminal:
        terminal.wait("nothing listens at", "It is tried again")
        bus.hub.start()
        terminal.wait("connected", "Waiting for results")
        terminal.press("q")
        terminal.wait("exit code 0")
