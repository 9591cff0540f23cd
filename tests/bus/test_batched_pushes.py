"""The promises hold for batched pushes, too: each event settled once, nothing lost at deaths, one bad result alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from infertool.embedded.channel_server.channels import Answer, Channel, Definition, EventHandler, Limits, Reply
from infertool.embedded.channel_server.server import definitions, handle_service
from tests.bus.conftest import Bus
from tests.bus.test_deaths import assert_none_lost, kill_in_the_middle
from tests.bus.test_settlement import assert_each_once
from tests.embedded.channel_server.running import RunningHub
from tests.support.hub import HubProcess
from tests.support.viewer import Viewer

LONG = 240
EVENTS = 2000
KILLS = 8
FAST = "sim:?min_ms=0&max_ms=0&failure_rate=0.02&seed=1"
# A call takes 20 ms for a batch, and one event in fifty fails.
SLOW = """
import time

from infertool import InferenceError


class Net:
    def predict_batch(self, payloads):
        time.sleep(0.02)
        return [InferenceError("no", retryable=False) if p["features"][0] % 50 == 7 else {"ok": True} for p in payloads]

    def predict(self, payload):
        [result] = self.predict_batch([payload])
        if isinstance(result, Exception):
            raise result
        return result
"""


@pytest.mark.parametrize("confirm", ["auto", "reply", "echo", "barrier"])
def test_each_event_ends_once(embedded_bus: Bus, confirm: str) -> None:
    bus = embedded_bus
    ids = bus.send(EVENTS, poison=20)
    consumer = bus.consume(
        "--max-messages", f"{EVENTS}", "--max-attempts", "1", "--confirm", confirm, "--publish-batch", "32", model=FAST
    )
    summary = consumer.finish()
    assert bus.viewer.wait(EVENTS, LONG)
    results, dead = assert_each_once(bus, ids)
    assert bus.viewer.batches
    assert (summary["succeeded"], summary["dead_lettered"]) == (results, dead)
    assert summary["pushed"] == summary["confirmed"] == EVENTS
    assert dead > 20


def test_killed_at_random_instants(bus: Bus) -> None:
    model = bus.folder / "net.py"
    model.write_text(SLOW)
    ids = bus.send(EVENTS, poison=20)
    options = ("--concurrency", "2", "--batch-size", "16")
    kill_in_the_middle(
        bus, EVENTS, lambda: bus.consume(*options, model=f"{model}:Net"), kills=KILLS, apart=EVENTS // KILLS
    )
    bus.consume("--exit-when-idle", "1s", *options, model=f"{model}:Net").finish()
    assert_none_lost(bus, ids)
    assert bus.viewer.batches


def test_the_hub_is_killed_and_comes_back(embedded_bus: Bus) -> None:
    bus = embedded_bus
    bus.viewer.close()
    model = bus.folder / "net.py"
    model.write_text(SLOW)
    with HubProcess() as hub:
        bus.hub = hub
        bus.viewer = Viewer(hub.url)
        bus.send(1000)
        consumer = bus.consume(
            "--concurrency", "2", "--batch-size", "16", "--publish-batch", "8", "--exit-when-idle", "2s",
            model=f"{model}:Net",
        )  # fmt: skip
        assert bus.viewer.wait(200, LONG)
        hub.kill()
        hub.start()
        # What was broadcast before the viewer was back is missed by it, as by any dashboard: the broker is the judge.
        summary = consumer.finish()
        bus.viewer.close()
    assert bus.viewer.batches
    assert (summary["received"], summary["succeeded"], summary["dead_lettered"]) == (1000, 980, 20)
    assert bus.left() == 0
    assert len(bus.dead_ids()) == 20


def no_batches(channel: Channel, event: str, payload: Any) -> Answer:
    """Crash of a batch, as a Phoenix channel does of an event that it has no clause for."""
    if event == "new_results":
        raise RuntimeError("no function clause matching")
    return handle_service(channel, event, payload)


def ignores_batches(channel: Channel, event: str, payload: Any) -> Answer:
    """Broadcast single results, and have a catch-all: `handle_in(_, _, socket) -> {:noreply, socket}`."""
    return handle_service(channel, event, payload) if event != "new_results" else None


def one_bad_result(channel: Channel, event: str, payload: Any) -> Answer:
    """Refuse whatever holds the result of event 777."""
    results = payload["results"] if event == "new_results" else [payload]
    if event != "inference_failed" and any(result["request_id"] == "r-777" for result in results):
        return Reply({"reason": "bad result"}, status="error")
    return handle_service(channel, event, payload)


@contextlib.contextmanager
def served_by(bus: Bus, handle: EventHandler, limits: Limits | None = None, *, joins: Any = None) -> Iterator[str]:
    """Give the bus a hub whose service channel is `handle`, and answers joins with `joins`; yield its URL."""
    bus.viewer.close()
    _, public = definitions()
    with RunningHub(
        [Definition("service:*", lambda _channel, _params: joins or {}, handle), public], limits=limits
    ) as hub:
        url = f"ws://127.0.0.1:{hub.port}/socket/websocket"
        bus.viewer = Viewer(url)
        yield url
        bus.viewer.close()


def pushed_singly(bus: Bus, joins: Any, *options: str) -> str:
    """Check that a channel that answers joins like this, and knows no batches, gets single results; return the log."""
    with served_by(bus, no_batches, joins=joins) as url:
        ids = bus.send(300)
        consumer = bus.consume("--phoenix", url, "--max-messages", "300", *options, model=FAST)
        consumer.finish()
        assert bus.viewer.wait(300, LONG)
    assert_each_once(bus, ids)
    assert not bus.viewer.batches
    return consumer.log.read_text()


@pytest.mark.parametrize("response", [{}, {"accepts": ["new_result"]}, {"accepts": "new_results"}, ["new_results"]])
def test_a_channel_that_announces_no_batches_gets_none(embedded_bus: Bus, response: Any) -> None:
    assert "results are pushed singly" not in pushed_singly(embedded_bus, response)


def test_a_channel_that_announces_what_it_does_not_know_gets_single_results(embedded_bus: Bus) -> None:
    assert pushed_singly(embedded_bus, {"accepts": ["new_results"]}).count("results are pushed singly") == 1


def test_a_channel_that_knows_no_batches_gets_single_results(embedded_bus: Bus) -> None:
    log = pushed_singly(embedded_bus, {}, "--publish-batch", "32")
    assert log.count("results are pushed singly") == 1


@pytest.mark.parametrize("confirm", ["barrier", "none", "echo"])
def test_a_channel_that_ignores_batches_loses_no_result(embedded_bus: Bus, confirm: str) -> None:
    bus = embedded_bus
    with served_by(bus, ignores_batches) as url:
        ids = bus.send(500)
        options = ("--phoenix", url, "--max-messages", "500", "--publish-batch", "64", "--confirm", confirm)
        consumer = bus.consume(*options, model=FAST, INFERTOOL_PHOENIX__PUSH_TIMEOUT_S="1")
        consumer.finish()
        assert bus.viewer.wait(500, LONG)
    assert_each_once(bus, ids)
    assert consumer.log.read_text().count("results are pushed singly") == 1


def test_one_bad_result_fails_alone(embedded_bus: Bus) -> None:
    bus = embedded_bus
    with served_by(bus, one_bad_result) as url:
        ids = bus.send(1000)
        model = "sim:?min_ms=0&max_ms=0&failure_rate=0"
        options = ("--phoenix", url, "--max-messages", "1000", "--publish-batch", "32")
        bus.consume(*options, model=model, INFERTOOL_CONSUME__RETRY_BASE_S="0.01").finish()
        assert bus.viewer.wait(1000, LONG)
    assert assert_each_once(bus, ids) == (999, 1)
    assert bus.viewer.payloads[ids[777]]["stage"] == "publish"
    assert bus.viewer.batches
