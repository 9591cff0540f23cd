"""The cache, end to end: hits are counted, and marked in what the dashboards see."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.bus.conftest import Bus


@pytest.mark.parametrize("how", [(), ("--executor", "processes", "--workers", "1")], ids=["threads", "processes"])
def test_hits_are_counted_and_marked(embedded_bus: Bus, how: tuple[str, ...]) -> None:
    bus = embedded_bus
    raw = bus.raw()
    ids = [str(uuid.uuid4()) for _ in range(60)]
    bodies = [json.dumps({"event_id": each, "n": number % 3}).encode() for number, each in enumerate(ids)]
    raw.send(bus.queue, (({}, body) for body in bodies))
    raw.close()
    # One at a time: equal events that are in work at the same time would all be asked for.
    options = ("--cache", "100:5m", "--concurrency", "1", "--max-messages", "60", *how)
    summary = bus.consume(*options, model="fixtures/models/echo.py:predict").finish()
    assert (summary["succeeded"], summary["cache_hits"]) == (60, 57)
    assert bus.viewer.wait(60, 60)
    marked = [document for document in bus.viewer.payloads.values() if document.get("cached")]
    assert len(marked) == 57
    assert all(bus.viewer.payloads[each]["prediction"]["n"] == number % 3 for number, each in enumerate(ids))
