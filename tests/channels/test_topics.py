"""Following topics of a real channel server, and of a server that misbehaves."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from infertool.channels.event import ChannelEvent
from infertool.channels.topics import TopicFeed
from infertool.errors import JoinRefusedError, UnreachableError
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.phoenix.frames import Frame
from infertool.settings.tree import PhoenixSettings
from tests.channels.conftest import Collected, Pusher
from tests.support.hub import HubProcess
from tests.support.phoenix_fake import Peer, fake_phoenix, polite
from tests.support.ports import free_port

TOPICS = ("public:results", "public:alerts", "public:results")


class Following:
    def __init__(self, url: str, *topics: str, source: str = "") -> None:
        self.collected = Collected()
        self.links: queue.Queue[ConnectionEvent] = queue.Queue()
        self.topics: queue.Queue[tuple[str, str]] = queue.Queue()
        self.feed = TopicFeed(
            PhoenixSettings(url=url, connect_timeout_s=90),
            topics or TOPICS,
            on_events=self.collected,
            on_connection=self.links.put,
            on_topic=lambda *change: self.topics.put(change),
            source=source,
        )

    def wait_for(self, state: ConnectionState) -> None:
        while self.links.get(timeout=60).state is not state:
            pass


@contextlib.contextmanager
def following(url: str, *topics: str, source: str = "") -> Iterator[Following]:
    made = Following(url, *topics, source=source)
    made.feed.connect()
    try:
        yield made
    finally:
        made.feed.close(2)


def test_results_and_alerts_in_order_and_in_batches(hub: HubProcess, pusher: Pusher) -> None:
    with following(hub.url, source="prod") as f:
        pusher.push("new_result", *({"event_id": f"e{n}"} for n in range(500)))
        pusher.push("inference_failed", {"event_id": "bad"})
        arrivals = f.collected.wait(501)
    results = [arrival for arrival in arrivals if arrival.topic == "public:results"]
    assert [arrival.payload["event_id"] for arrival in results] == [f"e{n}" for n in range(500)]
    assert {(arrival.event, arrival.source) for arrival in results} == {("new_result", "prod")}
    assert arrivals[-1].payload == {"event_id": "bad"}
    assert arrivals == sorted(arrivals, key=lambda arrival: arrival.at)
    assert len(f.collected.batches) < 500


def test_a_restarted_server(hub: HubProcess) -> None:
    with following(hub.url) as f:
        f.wait_for(ConnectionState.CONNECTED)
        hub.kill()
        f.wait_for(ConnectionState.LOST)
        hub.start()
        f.wait_for(ConnectionState.CONNECTED)
        pusher = Pusher(hub.url)
        while not f.collected.batches:  # the join may still be under way
            pusher.push("new_result", {"event_id": "after"})
        pusher.close()
    assert f.collected.all[0].payload == {"event_id": "after"}
    assert f.topics.empty()


def test_connect_can_be_repeated_after_a_failure() -> None:
    made = Following(f"ws://u:secret@127.0.0.1:{free_port()}/socket/websocket?token=secret")
    with pytest.raises(UnreachableError):
        made.feed.connect()
    assert "secret" not in made.feed.address
    hub = HubProcess(int(made.feed.address.split(":")[2].split("/")[0]))
    with hub:
        made.feed.connect()
        made.feed.close(2)


def test_a_refused_topic_leaves_nothing_open(hub: HubProcess) -> None:
    with pytest.raises(JoinRefusedError, match="nobody:knows"), following(hub.url, "public:results", "nobody:knows"):
        pass  # the fixture no_thread_left looks for what was left


def test_a_crashed_topic_is_reported_and_rejoined() -> None:
    with fake_phoenix() as server, following(server.url, "t") as f:
        server.peers[0].crash(server.frames[0])
        assert f.topics.get(timeout=60) == ("t", "the channel crashed")
        assert f.topics.get(timeout=60) == ("t", "")


def test_batches_are_unpacked() -> None:
    batch = {"results": [{"n": 0}, {"n": 1}, 2]}
    odd: list[Any] = [{"results": 1}, [], None, {"x": []}]

    def on_frame(peer: Peer, frame: Frame) -> None:
        polite(peer, frame)
        peer.broadcast("t", "new_results", batch)
        for payload in odd:
            peer.broadcast("t", "new_results", payload)
        peer.broadcast("t", "other", batch)

    with fake_phoenix(on_frame) as server, following(server.url, "t") as f:
        arrivals = [(arrival.event, arrival.payload) for arrival in f.collected.wait(8)]
    unpacked = [("new_result", payload) for payload in batch["results"]]
    assert arrivals == [*unpacked, *(("new_results", payload) for payload in odd), ("other", batch)]


def test_events_that_are_not_taken_do_not_end_the_connection() -> None:
    """While nothing is read, the answers to heartbeats are not read either."""
    taken = threading.Event()
    links: list[ConnectionState] = []

    def on_frame(peer: Peer, frame: Frame) -> None:
        polite(peer, frame)
        if frame.event == "phx_join":
            peer.broadcast("t", "x", {})

    def on_events(_events: Sequence[ChannelEvent]) -> None:
        taken.wait(90)

    with fake_phoenix(on_frame) as server:
        feed = TopicFeed(
            PhoenixSettings(url=server.url, heartbeat_s=1, connect_timeout_s=90),
            ["t"],
            on_events=on_events,
            on_connection=lambda event: links.append(event.state),
        )
        feed.connect()
        try:
            server.wait_for(lambda: len(server.events("phoenix")) >= 4)
            assert links == [ConnectionState.CONNECTING, ConnectionState.CONNECTED]
        finally:
            taken.set()
            feed.close(2)
