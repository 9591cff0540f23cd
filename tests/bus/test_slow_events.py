"""A model of mixed speed: quick, but for an event that takes long. Everything else comes out meanwhile."""

from __future__ import annotations

import pytest

from tests.bus.conftest import Bus
from tests.bus.test_inline import MODEL, hold
from tests.bus.test_settlement import assert_each_once

pytestmark = pytest.mark.long

LONG = 120
# The model holds number 2000, after so many quick ones before it.
EVENTS = 3000
# How it works, and how many others share the call of the slow event, which cannot be helped.
HOW = {
    "threads": (("--concurrency", "2"), 0),
    "processes": (("--executor", "processes", "--workers", "2"), 0),
    "batches": (("--batch-size", "8"), 7),
    "batches in processes": (("--executor", "processes", "--workers", "2", "--batch-size", "8"), 7),
}


@pytest.mark.parametrize("how", HOW)
def test_a_slow_event_holds_up_no_other(bus: Bus, how: str) -> None:
    options, companions = HOW[how]
    release = bus.folder / "release"
    ids = bus.send(EVENTS)
    consumer = bus.consume(
        "--max-messages", f"{EVENTS}", "--max-attempts", "1", *options,
        model=f"{MODEL}Batches" if companions else MODEL,
        QUICK_TAKES_S="0.0003", **hold(release),
    )  # fmt: skip
    assert bus.viewer.wait(EVENTS - 1 - companions, LONG)
    assert ids[2000] not in bus.viewer.seen
    release.touch()
    summary = consumer.finish()
    assert bus.viewer.wait(EVENTS, LONG)
    assert_each_once(bus, ids)
    assert summary["received"] == EVENTS
    assert {document["attempts"] for document in bus.viewer.payloads.values()} == {1}
