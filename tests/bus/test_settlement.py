"""Every event ends as exactly one confirmed result, or one dead letter with its alert."""

from __future__ import annotations

import collections

import pytest

from tests.bus.conftest import Bus

pytestmark = pytest.mark.long

LONG = 240


def assert_each_once(bus: Bus, ids: list[str]) -> tuple[int, int]:
    """Check that every event had one result, or one alert and one dead letter. Return how many of each."""
    dead = bus.dead_ids()
    assert set(bus.viewer.results.values()) <= {1}
    assert set(bus.viewer.alerts.values()) <= {1}
    assert collections.Counter(dead) == bus.viewer.alerts
    assert bus.viewer.results.keys() | bus.viewer.alerts.keys() == set(ids)
    assert not bus.viewer.results.keys() & bus.viewer.alerts.keys()
    assert bus.left() == 0
    return len(bus.viewer.results), len(dead)


@pytest.mark.parametrize("confirm", ["auto", "reply", "echo", "barrier"])
def test_two_thousand_events_with_failures_and_poison(bus: Bus, confirm: str) -> None:
    ids = bus.send(2000, poison=20)
    consumer = bus.consume(
        "--max-messages", "2000", "--max-attempts", "1", "--concurrency", "32", "--confirm", confirm,
        model="sim:?min_ms=0&max_ms=4&failure_rate=0.05&seed=1",
    )  # fmt: skip
    summary = consumer.finish()
    assert bus.viewer.wait(2000, LONG)
    results, dead = assert_each_once(bus, ids)
    assert 20 < dead < 200
    assert summary["received"] == 2000
    assert summary["succeeded"] == results
    assert summary["failed"] == summary["dead_lettered"] == dead
    assert summary["pushed"] == summary["confirmed"] == 2000
    assert summary["handed_back"] == summary["reconnects"] == 0
    assert summary["rate"] > 0
    assert summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"] <= summary["latency_ms"]["max"]


def test_retries_turn_most_failures_into_results(bus: Bus) -> None:
    ids = bus.send(300)
    consumer = bus.consume(
        "--max-messages", "300", "--max-attempts", "3",
        model="sim:?min_ms=0&max_ms=0&failure_rate=0.2", INFERTOOL_CONSUME__RETRY_BASE_S="0.01",
    )  # fmt: skip
    summary = consumer.finish()
    assert bus.viewer.wait(300, LONG)
    _, dead = assert_each_once(bus, ids)
    assert summary["retried"] > 20
    assert dead < 30


def test_exit_when_idle_and_more_messages_than_one_window(bus: Bus) -> None:
    ids = bus.send(700)
    consumer = bus.consume(
        "--exit-when-idle", "1s", "--concurrency", "300", model="sim:?min_ms=50&max_ms=60&failure_rate=0"
    )
    summary = consumer.finish()
    assert summary["succeeded"] == 700
    assert bus.viewer.wait(700, LONG)
    assert_each_once(bus, ids)


def test_max_messages_leaves_the_rest_to_the_broker(bus: Bus) -> None:
    ids = bus.send(50)
    assert bus.consume("--max-messages", "20").finish()["succeeded"] == 20
    assert bus.viewer.wait(20, LONG)
    assert bus.consume("--exit-when-idle", "1s").finish()["succeeded"] == 30
    assert bus.viewer.wait(50, LONG)
    assert_each_once(bus, ids)


@pytest.mark.parametrize("publish", ["stdout", "none"])
def test_without_phoenix(bus: Bus, publish: str) -> None:
    bus.send(100, poison=3)
    consumer = bus.consume("--publish", publish, "--max-messages", "100", "--phoenix", "ws://127.0.0.1:1/none")
    output, _ = consumer.process.communicate(timeout=LONG)
    assert consumer.process.returncode == 0, consumer.log.read_text()
    assert len(output.splitlines()) == (101 if publish == "stdout" else 1)
    assert len(bus.dead_ids()) == 3
    assert bus.left() == 0
