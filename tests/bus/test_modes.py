"""The settling guarantees in every executor and batch mode, on the real ActiveMQ.

The model fails one event in forty by spoiling its whole batch, and one by an exception in place of its result.
"""

from __future__ import annotations

import random

import pytest

from tests.bus.conftest import Bus
from tests.bus.test_deaths import assert_none_lost, kill_in_the_middle
from tests.bus.test_settlement import assert_each_once
from tests.support.hub import HubProcess
from tests.support.viewer import Viewer

LONG = 120
MODEL = "fixtures/models/batched.py:Batched"
PROCESSES = ("--executor", "processes", "--workers", "2")
MODES = {
    "processes": (*PROCESSES, "--batch-size", "1"),
    "batches in processes": (*PROCESSES, "--batch-size", "16", "--batch-wait", "5ms"),
    "adaptive batches": ("--concurrency", "4", "--target-latency", "30ms"),
    "adaptive concurrency": ("--concurrency", "auto"),
    "several consumers": ("--processes", "2", "--concurrency", "4"),
}
EVENTS, POISON, KILLS = 600, 10, 2

pytestmark = pytest.mark.activemq
in_every_mode = pytest.mark.parametrize("mode", MODES)


def failing(count: int, poison: list[bool]) -> int:
    """Return how many of the first `count` events will be dead letters."""
    return sum(bad or number % 40 in {3, 23} for number, bad in zip(range(count), poison, strict=True))


@in_every_mode
def test_every_event_ends_once(real_bus: Bus, mode: str) -> None:
    bus = real_bus
    ids = bus.send(EVENTS, poison=POISON)
    consumer = bus.consume("--exit-when-idle", "1s", "--max-attempts", "1", *MODES[mode], model=MODEL)
    summary = consumer.finish()
    assert bus.viewer.wait(EVENTS, LONG)
    results, dead = assert_each_once(bus, ids)
    poison = random.Random(7).sample([False] * (EVENTS - POISON) + [True] * POISON, EVENTS)
    assert dead == failing(EVENTS, poison)
    assert summary["received"] == EVENTS
    assert summary["succeeded"] == results
    assert summary["failed"] == summary["dead_lettered"] == dead
    assert summary["handed_back"] == summary["reconnects"] == 0
    assert all(bus.viewer.payloads[i]["prediction"]["number"] == ids.index(i) for i in bus.viewer.results)


@pytest.mark.long
@in_every_mode
def test_the_consumer_is_killed_and_the_broker_too(real_bus: Bus, mode: str) -> None:
    bus = real_bus
    ids = bus.send(EVENTS, poison=POISON)
    kill_in_the_middle(bus, EVENTS, lambda: bus.consume(*MODES[mode], model=MODEL), kills=KILLS, apart=100)
    consumer = bus.consume(*MODES[mode], model=MODEL, INFERTOOL_BROKER__RECONNECT_MAX_S="0.5")
    consumer.wait_for("broker connected")
    bus.broker.kill()
    bus.broker.start()
    more = bus.send(50)
    assert bus.viewer.wait(EVENTS + len(more), LONG)
    consumer.terminate()
    assert consumer.finish()["succeeded"] > 0
    # An event whose alert was seen before the broker went may come again after all others were seen.
    bus.consume("--exit-when-idle", "1s", *MODES[mode], model=MODEL).finish()
    assert_none_lost(bus, ids + more)


def test_the_hub_restarts(real_bus: Bus) -> None:
    """The broker is the judge: what was broadcast before the viewer is back is missed by it, as by any dashboard."""
    bus = real_bus
    with HubProcess() as bus.hub:
        viewer = Viewer(bus.hub.url)
        bus.send(2 * EVENTS, poison=POISON)
        consumer = bus.consume("--exit-when-idle", "1s", *MODES["batches in processes"], model=MODEL)
        assert viewer.wait(50, LONG)
        viewer.close()
        bus.hub.kill()
        bus.hub.start()
        summary = consumer.finish()
    assert summary["received"] == summary["succeeded"] + summary["dead_lettered"] == 2 * EVENTS
    assert bus.left() == 0
