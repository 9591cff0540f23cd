"""Channels that end: each event is settled once, or kept; an innocent one is never blamed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from infertool.embedded.channel_server.channels import Limits
from infertool.embedded.channel_server.server import handle_service
from tests.bus.conftest import Bus
from tests.bus.faulty import FAILING, LONG, PLAIN, Service, numbers_of, stop
from tests.bus.test_batched_pushes import served_by
from tests.bus.test_settlement import assert_each_once

pytestmark = pytest.mark.long


def crash_over(*numbers: int) -> Callable[[str, dict[str, Any]], None]:
    def fault(_event: str, payload: dict[str, Any]) -> None:
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
    """The server closes the connection, 1009. Size tells it; the message says which two limits do not fit."""
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

    def fault(_event: str, payload: dict[str, Any]) -> None:
        if payload["event_id"] in poison:
            raise RuntimeError("an id that crashes the channel")

    service = Service(fault)
    with served_by(bus, service) as url:
        ids = bus.send(200)
        poison.update((ids[20], ids[90]))
        consumer = bus.consume("--phoenix", url, model=PLAIN)
        assert bus.viewer.wait(198, LONG)
        consumer.wait_for("not even with nothing but its id")
        summary = stop(consumer)
    assert max(service.crashes.values()) <= 3
    assert (summary["succeeded"], summary["dead_lettered"], summary["handed_back"]) == (198, 0, 2)
    assert bus.left() == 2
    assert not bus.dead_ids()


def test_a_server_that_is_away_makes_no_dead_letters(bus: Bus) -> None:
    away = True

    def fault(_event: str, _payload: dict[str, Any]) -> None:
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

    def fault(event: str, _payload: dict[str, Any]) -> None:
        if event == "inference_failed":
            raise RuntimeError("no function clause matching")

    service = Service(fault)
    with served_by(bus, service) as url:
        ids = bus.send(300)
        consumer = bus.consume("--phoenix", url, model=f"{model}:predict")
        assert bus.viewer.wait(270, LONG)
        consumer.wait_for("inference_failed")
        summary = stop(consumer)
    assert max(service.crashes.values()) <= 3
    assert (summary["succeeded"], summary["dead_lettered"], summary["handed_back"]) == (270, 0, 30)
    log = consumer.log.read_text()
    assert "service:inference" in log
    assert any(f"inference_failed {event_id}" in log for event_id in ids)
    assert not bus.dead_ids()
