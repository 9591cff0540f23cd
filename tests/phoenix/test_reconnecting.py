"""After an outage viewers are back before publishers; what they missed all the same they get from the embedded hub."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from infertool.channels.event import ChannelEvent
from infertool.channels.topics import TopicFeed
from infertool.embedded.channel_server import server
from infertool.embedded.channel_server.channels import Channel, Definition
from infertool.net import timing
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.net.timing import PUBLISHER, VIEWER
from infertool.phoenix import delivery as delivery_module
from infertool.settings.tree import PhoenixSettings
from tests.embedded.channel_server.running import RunningHub
from tests.phoenix.collect import delivery, pushes

LONG = 60


class Viewer:
    """What a feed tells."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.seen: list[str] = []
        self.missed: list[tuple[int, bool]] = []
        self.losses = 0

    def feed(self, url: str) -> TopicFeed:
        return TopicFeed(
            PhoenixSettings(url=url), ["public:results"], on_events=self._take, on_connection=self._link,
            on_missed=self._missed,
        )  # fmt: skip

    def wait_for_seen(self, count: int) -> None:
        self.wait_for(lambda: len(self.seen) >= count)

    def wait_for(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, LONG), f"in vain: {len(self.seen)} seen"

    def _take(self, arrivals: Sequence[ChannelEvent]) -> None:
        with self.changed:
            self.seen += [arrival.payload["event_id"] for arrival in arrivals]
            self.changed.notify_all()

    def _link(self, event: ConnectionEvent) -> None:
        with self.changed:
            self.losses += event.state is ConnectionState.LOST
            self.changed.notify_all()

    def _missed(self, _topic: str, count: int, complete: bool) -> None:
        with self.changed:
            self.missed.append((count, complete))
            self.changed.notify_all()


def recording(joins: list[str]) -> list[Definition]:
    """The hub's own channels, which note who joins."""

    def noted(definition: Definition) -> Definition:
        def join(channel: Channel, params: Any) -> Any:
            joins.append(channel.topic)
            return definition.join(channel, params)

        return replace(definition, join=join)

    return [noted(definition) for definition in server.definitions()]


def test_a_viewer_has_come_back_before_a_publisher_joins() -> None:
    """With its longest wait and jitter, and time for the join."""
    longest = max(VIEWER.schedule.wait(failures) for failures in range(1, 200))
    assert longest < PUBLISHER.settle_s - 0.3
    assert min(PUBLISHER.schedule.wait(1) for _ in range(100)) > 5 * max(VIEWER.schedule.wait(1) for _ in range(100))
    assert max(timing.RECONNECT.waits_s) == max(VIEWER.schedule.waits_s)


def test_after_an_outage_nothing_is_pushed_before_the_viewer_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # More time than any machine needs: what is tested is the order.
    monkeypatch.setattr(delivery_module, "PUBLISHER", replace(PUBLISHER, settle_s=10.0))
    viewer = Viewer()
    with RunningHub(server.definitions()) as hub:
        url = f"ws://127.0.0.1:{hub.port}/socket/websocket"
        feed = viewer.feed(url)
        feed.connect()
        with delivery(url) as (made, owner):
            made.push(pushes(100))
            assert made.drain(LONG)
            viewer.wait_for(lambda: len(viewer.seen) == 100)
            hub.stop()
            made.push(pushes(200)[100:])
            owner.wait_for(lambda: len([link for link in owner.links if link.state is ConnectionState.LOST]) >= 3, LONG)
            viewer.wait_for(lambda: viewer.losses >= 3)
            joins: list[str] = []
            with RunningHub(recording(joins), port=hub.port):
                assert made.drain(LONG)
                assert joins == ["public:results", "service:inference"]
                viewer.wait_for(lambda: len(viewer.seen) >= 200)
                assert viewer.seen == [f"e{number}" for number in range(200)]
                feed.close(5)


def test_what_a_viewer_missed_comes_after_all() -> None:
    viewer = Viewer()
    with RunningHub(server.definitions()) as hub:
        url = f"ws://127.0.0.1:{hub.port}/socket/websocket"
        feed = viewer.feed(url)
        feed.connect()
        with delivery(url) as (made, _):
            for begin in range(0, 500, 100):
                made.push(pushes(begin + 100)[begin : begin + 50])
                assert made.drain(LONG)
                viewer.wait_for_seen(begin + 50)
                hub.cut("public:results")
                made.push(pushes(begin + 100)[begin + 50 :])
                assert made.drain(LONG)
                viewer.wait_for_seen(begin + 100)
        feed.close(5)
    assert viewer.seen == [f"e{number}" for number in range(500)]
    assert len(viewer.missed) == 5
    assert all(complete for _, complete in viewer.missed)
