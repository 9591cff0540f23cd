"""Channels that end, refuse or ignore: each event is settled once, or kept; never a dead letter without its alert."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from infertool.devserver.hub.bus import handle_service
from infertool.devserver.hub.channels import Answer, Channel, Reply
from infertool.devserver.hub.hub import Limits
from tests.bus.conftest import Bus
from tests.bus.test_batched_pushes import served_by
from tests.bus.test_settlement import assert_each_once
from tests.support.running import Running

LONG = 180
PLAIN = "sim:?min_ms=0&max_ms=0&failure_rate=0"
QUICK = {"INFERTOOL_CONSUME__RETRY_BASE_S": "0.01"}
# Events whose number ends with 7 fail.
FAILING = """
from infertool import InferenceError


def predict(payload):
    if payload["features"][0] % 10 == 7:
        raise InferenceError("no", retryable=False)
    return {"ok": True}
"""


class Service:
    """The channel of the embedded server, with a fault of its own before it."""

    def __init__(self, fault: Callable[[str, dict], Answer]) -> None:
        self.fault = fault
        self.crashes: Counter[str] = Counter()
        self.pushes = 0
        self.changed = threading.Condition()

    def __call__(self, channel: Channel, event: str, payload: dict) -> Answer:
        with self.changed:
            self.pushes += 1
            self.changed.notify_all()
        try:
            answer = self.fault(event, payload)
        except RuntimeError:
            with self.changed:
                self.crashes[payload.get("event_id", event)] += 1
                self.changed.notify_all()
            raise
        return answer or handle_service(channel, event, payload)

    def wait_for(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, LONG)


def wait_for_log(consumer: Running, text: str, times: int = 1) -> None:
    deadline = time.monotonic() + LONG
    while consumer.log.read_text().count(text) < times:
        assert time.monotonic() < deadline, consumer.log.read_text()[-3000:]
        assert consumer.process.poll() is None
        time.sleep(0.1)


def stop(consumer: Running) -> dict[str, Any]:
    consumer.terminate()
    return consumer.finish()


def numbers_of(payload: dict) -> list[int]:
    """Return the numbers of the events in a push, from what was sent with them."""
    documents = payload.get("results", [payload])
    originals = [document.get("original_payload") or {} for document in documents]
    return [int(original["features"][0]) for original in originals if "features" in original]


def crash_over(*numbers: int) -> Callable[[str, dict], None]:
    def fault(_event: str, payload: dict) -> None:
        if set(numbers) & set(numbers_of(payload)):
            raise RuntimeError("a payload that crashes the channel")

    return fault


@pytest.mark.parametrize("batch", ["1", "32"])
def test_payloads_that_crash_the_channel(bus: Bus, batch: str) -> None:
    """Whatever holds them, results and alerts: three crashes each at most, a dead letter and an alert for each."""
    service = Service(crash_over(10, 150, 151))
    with served_by(bus, service) as url:
        ids = bus.send(400)
        options = ("--phoenix", url, "--max-messages", "400", "--publish-batch", batch)
        summary = bus.consume(*options, model=PLAIN).finish()
        assert bus.viewer.wait(400, LONG)
    assert assert_each_once(bus, ids) == (397, 3)
    assert (summary["succeeded"], summary["dead_lettered"]) == (397, 3)
    assert sum(service.crashes.values()) <= 9
    for number in (10, 150, 151):
        assert bus.viewer.payloads[ids[number]]["stage"] == "publish"


@pytest.mark.parametrize("batch", ["1", "32"])
def test_results_larger_than_the_server_takes(embedded_bus: Bus, batch: str) -> None:
    """The server closes the connection, 1009. The message says which two limits do not fit."""
    bus = embedded_bus
    with served_by(bus, handle_service, Limits(max_frame_bytes=100_000)) as url:
        ids = bus.send(100)
        raw = bus.raw()
        large = json.dumps({"features": [0], "x": "y" * 500_000}).encode()
        raw.send(bus.queue, [({"event_id": f"large-{number}"}, large) for number in range(2)])
        raw.close()
        ids += [f"large-{number}" for number in range(2)] + bus.send(100)
        options = ("--phoenix", url, "--max-messages", "202", "--publish-batch", batch)
        consumer = bus.consume(*options, model=PLAIN)
        consumer.finish()
        assert bus.viewer.wait(202, LONG)
    assert assert_each_once(bus, ids) == (200, 2)
    assert bus.viewer.payloads["large-0"]["stage"] == "publish"
    log = consumer.log.read_text()
    assert "new_result large-0" in log
    assert "publish.max_bytes" in log
    assert "max_frame_size" in log


def test_ids_that_crash_the_channel(embedded_bus: Bus) -> None:
    """Not even the least alert is taken: the events are kept, and handed back at the stop."""
    bus = embedded_bus
    poison: set[str] = set()

    def fault(_event: str, payload: dict) -> None:
        if payload["event_id"] in poison:
            raise RuntimeError("an id that crashes the channel")

    service = Service(fault)
    with served_by(bus, service) as url:
        ids = bus.send(200)
        poison.update((ids[20], ids[90]))
        consumer = bus.consume("--phoenix", url, model=PLAIN)
        assert bus.viewer.wait(198, LONG)
        wait_for_log(consumer, "not even with nothing but its id")
        summary = stop(consumer)
    assert max(service.crashes.values()) <= 3
    assert (summary["succeeded"], summary["dead_lettered"], summary["handed_back"]) == (198, 0, 2)
    assert bus.left() == 2
    assert not bus.dead_ids()


def test_a_server_that_is_away_makes_no_dead_letters(bus: Bus) -> None:
    away = True

    def fault(_event: str, _payload: dict) -> None:
        if away:
            raise RuntimeError("its database is away")

    service = Service(fault)
    with served_by(bus, service) as url:
        ids = bus.send(5)
        consumer = bus.consume("--phoenix", url, "--max-messages", "5", model=PLAIN)
        service.wait_for(lambda: sum(service.crashes.values()) >= 4)
        away = False
        summary = consumer.finish()
        assert bus.viewer.wait(5, LONG)
    assert assert_each_once(bus, ids) == (5, 0)
    assert summary["dead_lettered"] == 0
    log = consumer.log.read_text()
    assert "the server seems at fault, not the events" in log
    assert "service:inference" in log


def test_a_channel_without_a_clause_for_failures(embedded_bus: Bus) -> None:
    bus = embedded_bus
    model = bus.folder / "failing.py"
    model.write_text(FAILING)

    def fault(event: str, _payload: dict) -> None:
        if event == "inference_failed":
            raise RuntimeError("no function clause matching")

    service = Service(fault)
    with served_by(bus, service) as url:
        ids = bus.send(300)
        consumer = bus.consume("--phoenix", url, model=f"{model}:predict")
        assert bus.viewer.wait(270, LONG)
        wait_for_log(consumer, "inference_failed")
        summary = stop(consumer)
    assert max(service.crashes.values()) <= 3
    assert (summary["succeeded"], summary["dead_lettered"], summary["handed_back"]) == (270, 0, 30)
    log = consumer.log.read_text()
    assert "service:inference" in log
    assert any(f"inference_failed {event_id}" in log for event_id in ids)
    assert not bus.dead_ids()


@pytest.mark.parametrize("answer", [{"reason": "bad"}, None], ids=["refused", "crashed"])
def test_alerts_that_are_taken_without_their_payload_only(embedded_bus: Bus, answer: dict | None) -> None:
    bus = embedded_bus
    model = bus.folder / "failing.py"
    model.write_text(FAILING)

    def fault(event: str, payload: dict) -> Answer:
        if event == "inference_failed" and numbers_of(payload):
            if answer is None:
                raise RuntimeError("cannot store this")
            return Reply(answer, status="error")
        return None

    service = Service(fault)
    with served_by(bus, service) as url:
        ids = bus.send(40)
        options = ("--phoenix", url, "--max-messages", "40")
        bus.consume(*options, model=f"{model}:predict", **QUICK).finish()
        assert bus.viewer.wait(40, LONG)
    assert assert_each_once(bus, ids) == (36, 4)
    assert all(bus.viewer.payloads[ids[number]]["status"] == "FAILED" for number in (7, 17, 27, 37))


def test_alerts_that_are_refused_make_no_dead_letters_until_they_are_taken(bus: Bus) -> None:
    model = bus.folder / "failing.py"
    model.write_text(FAILING)
    refused = True

    def fault(event: str, _payload: dict) -> Answer:
        return Reply({"reason": "no alerts"}, status="error") if refused and event == "inference_failed" else None

    service = Service(fault)
    with served_by(bus, service) as url:
        ids = bus.send(20)
        consumer = bus.consume("--phoenix", url, "--max-messages", "20", model=f"{model}:predict", **QUICK)
        assert bus.viewer.wait(18, LONG)
        wait_for_log(consumer, "is no dead letter without an alert")
        assert not bus.dead_ids()
        refused = False
        consumer.finish()
        assert bus.viewer.wait(20, LONG)
    assert assert_each_once(bus, ids) == (18, 2)


@pytest.mark.parametrize("confirm", ["reply", "echo"])
def test_a_channel_that_ignores_everything_is_told_of(embedded_bus: Bus, confirm: str) -> None:
    bus = embedded_bus
    pushes: list[str] = []

    def ignores(_channel: Channel, event: str, _payload: dict) -> Answer:
        pushes.append(event)
        return None

    with served_by(bus, ignores) as url:
        bus.send(50)
        environment = {"INFERTOOL_PHOENIX__PUSH_TIMEOUT_S": "1", "INFERTOOL_CONSUME__STOP_DEADLINE_S": "1"}
        consumer = bus.consume("--phoenix", url, "--confirm", confirm, model=PLAIN, **environment)
        wait_for_log(consumer, f"phoenix.confirm = {confirm}", times=2)
        assert len(pushes) == 50
        summary = stop(consumer)
    assert (summary["succeeded"], summary["handed_back"]) == (0, 50)
