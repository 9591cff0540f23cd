"""Broadcasts that the view missed while it was not connected follow, if the channel server remembers them."""

from __future__ import annotations

import time

from infertool.settings import Settings
from infertool.settings.tree import PhoenixSettings
from infertool.watch.bus import Bus, LiveSource
from infertool.watch.entry import Entry, Kind
from infertool.watch.state import State
from tests.channels.conftest import Pusher, hub, pusher  # noqa: F401
from tests.support.hub import HubProcess
from tests.support.proxy import Proxy

LONG = 60


def shown(bus: Bus, count: int) -> list[Entry]:
    """Wait until the list has `count` results; return its rows, the oldest first."""
    deadline = time.monotonic() + LONG
    while bus.state.totals.results < count:
        assert time.monotonic() < deadline, bus.state.totals
        bus.drain()
        time.sleep(0.01)
    while bus.state.work():
        pass
    return [*reversed(bus.state.results.all_rows())]


def test_after_an_outage_the_gap_is_filled(hub: HubProcess, pusher: Pusher) -> None:  # noqa: F811
    with Proxy(hub.port) as proxy:
        url = f"ws://127.0.0.1:{proxy.port}/socket/websocket"
        bus = Bus(State("", 100), LiveSource(Settings(phoenix=PhoenixSettings(url=url)), ["public:results"]))
        bus.start()
        while not bus.state.joined:
            bus.drain()
            time.sleep(0.01)
        pusher.push("new_result", {"event_id": "e0"})
        shown(bus, 1)
        proxy.stall()
        proxy.cut()
        pusher.push("new_result", {"event_id": "e1"})
        pusher.push("new_results", {"results": [{"event_id": "e2"}, {"event_id": "e3"}]})
        proxy.resume()
        rows = shown(bus, 4)
        pusher.push("new_result", {"event_id": "e4"})
        rows = shown(bus, 5)
        bus.stop()
    assert [row.event_id for row in rows if row.kind is not Kind.GAP] == ["e0", "e1", "e2", "e3", "e4"]
    first, missed = [row.label for row in rows if row.kind is Kind.GAP]
    assert "events sent then are missing" in first
    assert missed == "public:results: 2 missed broadcasts follow"
    assert rows.index(next(row for row in rows if row.label == missed)) == 2
