"""Shipped rules on a real ActiveMQ: each fires for its cause, and is resolved once that is gone.

The expressions are the shipped ones, with smaller numbers and without `for`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest

from infertool.alerts.shipped import SHIPPED
from tests.alerts.receiver import Receiver, receiving
from tests.bus.conftest import Bus
from tests.support.hub import HubProcess
from tests.support.modelserver import ModelServer, answer, reply
from tests.support.running import LONG, Running

pytestmark = [pytest.mark.activemq, pytest.mark.long]

MODEL = """
import os, time
GATE = {gate!r}

def predict(payload):
    if payload["kind"] == "fails":
        raise ValueError("it fails")
    if payload["kind"] == "slow":
        time.sleep(1.5)
    while payload["kind"] == "gated" and not os.path.exists(GATE):
        time.sleep(0.05)
    return {{"class": "a"}}
"""


@dataclass
class Scene:
    """A consumer, and what a story does to it."""

    bus: Bus
    stack: ExitStack
    consumer: Running | None = None

    def start(self, *options: str, **env: str) -> None:
        model = self.bus.folder / "staged.py"
        model.write_text(MODEL.format(gate=str(self.bus.folder / "gate")))
        self.consumer = self.bus.consume(
            *options,
            "--max-attempts",
            "1",
            **{"model": f"{model}:predict", "INFERTOOL_CONSUME__TIMEOUT_S": "600", **env},
        )

    def send(self, kind: str, count: int) -> None:
        raw = self.bus.raw()
        ids = [str(uuid.uuid4()) for _ in range(count)]
        raw.send(
            self.bus.queue,
            [({"event_id": each}, json.dumps({"event_id": each, "kind": kind}).encode()) for each in ids],
        )
        raw.close()

    def open_gate(self) -> None:
        (self.bus.folder / "gate").touch()


Story = Callable[[Scene, Mapping[str, str]], Iterator[None]]


def waiting(scene: Scene, env: Mapping[str, str]) -> Iterator[None]:
    """The window is full, and messages wait behind it."""
    scene.start("--window", "5", "--concurrency", "2", INFERTOOL_TELEMETRY__STUCK_AFTER_S="2", **env)
    scene.send("quick", 20)
    assert scene.bus.viewer.wait(20, LONG)
    scene.send("gated", 300)
    yield
    scene.open_gate()
    yield


def failing(scene: Scene, env: Mapping[str, str]) -> Iterator[None]:
    """Events fail, then many succeed."""
    scene.start(**env)
    scene.send("fails", 20)
    yield
    scene.send("quick", 400)
    yield


def slow(scene: Scene, env: Mapping[str, str]) -> Iterator[None]:
    """Calls take long, then are quick."""
    scene.start("--concurrency", "25", **env)
    scene.send("slow", 25)
    yield
    scene.send("quick", 3000)
    yield


def phoenix_goes(scene: Scene, env: Mapping[str, str]) -> Iterator[None]:
    """Phoenix goes, and comes back."""
    hub = scene.stack.enter_context(HubProcess())
    scene.bus = replace(scene.bus, hub=hub)
    scene.start(**env)
    assert scene.consumer
    # Phoenix is connected before; a consumer that has not begun ends without it.
    scene.consumer.wait_for("broker connected")
    hub.stop()
    yield
    hub.start()
    yield


def model_server_goes(scene: Scene, env: Mapping[str, str]) -> Iterator[None]:
    """A model server answers 503, and later as it should."""
    server = ModelServer()
    server.handler = lambda _request: reply(b"", "503 Service Unavailable")
    server.start()
    scene.stack.callback(server.stop)
    scene.start(model=server.url, INFERTOOL_MODEL__CIRCUIT_WAIT_S="0.5", **env)
    scene.send("quick", 5)
    yield
    server.handler = lambda _request: answer({"class": "a"})
    yield


# For each rule its story, and the numbers in its expressions that are smaller here.
STORIES: dict[str, tuple[Story, dict[str, str]]] = {
    "NoProgress": (waiting, {}),
    "Backlog": (waiting, {"1000": "100", "600": "50"}),
    "QueueAge": (waiting, {"300.0": "1.0", "120.0": "0.5"}),
    "DrainTime": (waiting, {"900.0": "100.0", "600.0": "50.0"}),
    "DeadLetters": (failing, {}),
    "ErrorBurn": (failing, {"100": "10"}),
    "ResponseTime": (slow, {"5000.0": "1000.0", "3000.0": "800.0"}),
    "ConnectionDown": (phoenix_goes, {}),
    "CircuitOpen": (model_server_goes, {}),
}


def rules(name: str, smaller: Mapping[str, str]) -> str:
    """Return the settings: the rule alone, without `for`, with smaller numbers."""
    [shipped] = [table for table in SHIPPED if table["name"] == name]
    changed: dict[str, Any] = {"name": name, "for": "0s", "keep_firing_for": "0s"}
    for key in {"when", "clear"} & shipped.keys():
        text = shipped[key]
        for number, less in smaller.items():
            text = text.replace(f" {number}", f" {less}")
        changed[key] = text
    others = [{"name": table["name"], "enabled": False} for table in SHIPPED if table["name"] != name]
    return json.dumps([changed, *others])


def told(hook: Receiver, count: int) -> Any:
    """Return what came, once it is `count`; a rate needs a minute to fall."""
    with hook.changed:
        assert hook.changed.wait_for(lambda: len(hook.requests) >= count, LONG), hook.requests
        return json.loads(hook.requests[count - 1][2])


@pytest.mark.parametrize("name", STORIES)
def test_a_shipped_rule_fires_and_is_resolved(real_bus: Bus, name: str) -> None:
    story, smaller = STORIES[name]
    with ExitStack() as stack:
        hook = stack.enter_context(receiving())
        scene = Scene(real_bus, stack)
        env = {
            "INFERTOOL_ALERTING__RULES": rules(name, smaller),
            "INFERTOOL_ALERTING__WEBHOOK_URL": hook.url("/hook"),
            "INFERTOOL_ALERTING__WEBHOOK_SECRET": "whsec_" + "a2tr" * 12,
            "INFERTOOL_ALERTING__TIMEOUT_S": "300",
        }
        steps = story(scene, env)
        next(steps)
        assert (told(hook, 1)["type"], told(hook, 1)["data"]["rule"]) == ("alert.firing", name)
        next(steps)
        assert (told(hook, 2)["type"], told(hook, 2)["data"]["rule"]) == ("alert.resolved", name)
        assert scene.consumer
        scene.consumer.terminate()
        scene.consumer.finish()
