"""A model that is away holds its events: none fails, no try is counted, and they stay with the broker."""

from __future__ import annotations

import re
import time

import pytest

from tests.bus.conftest import Bus
from tests.support.running import Running

LONG = 180


def wait_for_held(consumer: Running, count: int = 1) -> None:
    """Wait until that many events are held."""
    end = time.monotonic() + LONG
    while len(set(re.findall(r"(\S+) held for ", consumer.log.read_text()))) < count:
        assert time.monotonic() < end, consumer.log.read_text()[-3000:]
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("model", "how"),
    [
        ("away.py:predict", ()),
        ("away.py:InBatches", ("--batch-size", "4")),
        ("away.py:predict", ("--executor", "processes", "--workers", "1")),
    ],
    ids=["threads", "batches", "processes"],
)
def test_events_wait_for_a_model_that_is_away(embedded_bus: Bus, model: str, how: tuple[str, ...]) -> None:
    bus, back = embedded_bus, embedded_bus.folder / "back"
    ids = bus.send(30)
    options = ("--debug", "--window", "10", "--max-attempts", "2", *how)
    away = {"model": f"fixtures/models/{model}", "AWAY_UNTIL": str(back)}
    for _ in range(2):  # deaths while it waits are not the event's: the crash guard must not count them
        # All of the window is held, and none is tried at the moment of the kill: that one would be blamed, rightly.
        killed = bus.consume(*options, **away, AWAY_FOR_S="600")
        wait_for_held(killed, 10)
        killed.kill()
    stopped = bus.consume(*options, **away)
    wait_for_held(stopped, 10)
    stopped.terminate()
    assert stopped.finish()["handed_back"] == 10
    consumer = bus.consume(*options, "--max-messages", "30", **away)
    wait_for_held(consumer)
    back.touch()
    summary = consumer.finish()
    assert (summary["succeeded"], summary["dead_lettered"], summary["retried"]) == (30, 0, 0)
    assert summary["held"] >= 1
    assert bus.viewer.wait(30, LONG)
    assert set(bus.viewer.results) == set(ids)
    assert {document["attempts"] for document in bus.viewer.payloads.values()} == {1}
    assert bus.left() == 0
    assert not bus.dead_ids()
