"""Slow viewers: one far behind is disconnected, together they pause publishers; an operator's pause stays."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import pytest

from infertool.embedded.channel_server import server
from infertool.embedded.channel_server.channels import Limits
from infertool.phoenix.delivery import Push
from tests.embedded.channel_server.peer import Peer
from tests.embedded.channel_server.running import RunningHub
from tests.phoenix.collect import delivery

BIG = {"filler": "x" * 100_000}
TOPIC = "service:inference"
UNBOUNDED = 1 << 40
PAUSE, RESUME = {"state": "pause"}, {"state": "resume"}
MANY = Limits(viewer_messages=UNBOUNDED, max_unsent_bytes=UNBOUNDED, all_messages=40, all_bytes=UNBOUNDED)
LARGE = Limits(viewer_messages=UNBOUNDED, max_unsent_bytes=UNBOUNDED, all_messages=UNBOUNDED, all_bytes=4_000_000)
ONE = Limits(viewer_messages=40, max_unsent_bytes=UNBOUNDED)


class Publisher(Peer):
    """Pushes large results one after another, and receives flow events."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.flows: list[str] = []
        self.pushed = 0
        self._ref = 1
        self.join(TOPIC)

    def push(self, event: str = "new_result", payload: object = BIG) -> None:
        self._ref += 1
        self.tell("1", str(self._ref), TOPIC, event, payload)
        while (message := self.hear())[1] != str(self._ref):
            self._take(message)
        self.pushed += event == "new_result"

    def push_until(self, condition: Callable[[], bool], event: str = "new_result", payload: object = BIG) -> None:
        deadline = time.monotonic() + 240
        while not condition():
            assert time.monotonic() < deadline, f"in vain: {self.pushed} pushes"
            self.push(event, payload)

    def ask_until(self, condition: Callable[[], bool]) -> None:
        """Push events other than results, which would add to the viewers' backlog."""
        self.push_until(condition, "echo", {})

    def hear_flow(self) -> str:
        self._take(self.hear())
        return self.flows[-1]

    def _take(self, message: list[Any]) -> None:
        assert message[2:4] == [TOPIC, "flow"], message[:4]
        self.flows.append(message[4]["state"])


P = TypeVar("P", bound=Peer)


class Make(Protocol):
    """Connects a peer of a kind to a port; it is closed at the end."""

    def __call__(self, kind: type[P], port: int) -> P: ...


@pytest.fixture
def peers() -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def make(kind: type[P], port: int) -> P:
            peer: P = kind(port)
            stack.callback(peer.close)
            return peer

        yield make


def viewer(make: Make, port: int) -> Peer:
    peer = make(Peer, port)
    peer.join("public:results")
    return peer


def read_all(peer: Peer, count: int) -> None:
    for _ in range(count):
        assert peer.hear()[4] == BIG


def viewers(hub: RunningHub) -> int:
    return hub.hub.describe().get("public:results", 0)


def test_a_viewer_far_behind_is_disconnected_and_blocks_no_other(peers: Make) -> None:
    with RunningHub(server.definitions(), limits=ONE) as hub:
        publisher, _slow = peers(Publisher, hub.port), viewer(peers, hub.port)
        publisher.push_until(lambda: not viewers(hub))
        healthy = viewer(peers, hub.port)
        for _ in range(100):
            publisher.push()
            read_all(healthy, 1)
        assert publisher.flows == []


@pytest.mark.parametrize("limits", [MANY, LARGE], ids=["messages", "bytes"])
def test_viewers_together_pause_the_publishers_until_they_have_caught_up(peers: Make, limits: Limits) -> None:
    with RunningHub(server.definitions(), limits=limits) as hub:
        publisher = peers(Publisher, hub.port)
        slow = [viewer(peers, hub.port) for _ in range(3)]
        publisher.push_until(lambda: bool(publisher.flows))
        assert publisher.flows == ["pause"]
        assert viewers(hub) == 3
        late = peers(Publisher, hub.port)
        assert late.hear_flow() == "pause"
        for peer in slow:
            read_all(peer, publisher.pushed)
        assert publisher.hear_flow() == "resume"
        assert late.hear_flow() == "resume"


def test_an_operators_pause_outlives_the_overload(peers: Make) -> None:
    with RunningHub(server.definitions(), limits=MANY) as hub:
        publisher, slow = peers(Publisher, hub.port), viewer(peers, hub.port)
        publisher.push("flow", PAUSE)
        assert publisher.flows == ["pause"]
        publisher.push_until(lambda: len(publisher.flows) > 1)
        assert publisher.flows == ["pause", "pause"]
        late = peers(Publisher, hub.port)
        assert late.hear_flow() == "pause"
        read_all(slow, publisher.pushed)
        # The operator's pause was not for who came later.
        assert late.hear_flow() == "resume"
        publisher.push("echo", {})
        assert publisher.flows == ["pause", "pause"]
        publisher.push("flow", RESUME)
        assert publisher.flows == ["pause", "pause", "resume"]


def test_an_operators_resume_waits_for_the_viewers(peers: Make) -> None:
    with RunningHub(server.definitions(), limits=MANY) as hub:
        publisher, slow = peers(Publisher, hub.port), viewer(peers, hub.port)
        publisher.push("flow", PAUSE)
        publisher.push_until(lambda: len(publisher.flows) > 1)
        publisher.push("flow", RESUME)
        publisher.push("echo", {})
        assert publisher.flows == ["pause", "pause"]
        read_all(slow, publisher.pushed)
        assert publisher.hear_flow() == "resume"


def test_an_operators_pause_during_the_overload_stays(peers: Make) -> None:
    with RunningHub(server.definitions(), limits=MANY) as hub:
        publisher, other, slow = peers(Publisher, hub.port), peers(Publisher, hub.port), viewer(peers, hub.port)
        publisher.push_until(lambda: bool(publisher.flows))
        publisher.push("flow", PAUSE)
        read_all(slow, publisher.pushed)
        late = peers(Publisher, hub.port)
        publisher.ask_until(lambda: not hub.hub.flow.overloaded)
        late.push("flow", RESUME)
        assert late.flows[-1] == "resume"
        publisher.push("echo", {})
        assert publisher.flows == ["pause", "pause", "resume"]
        assert [other.hear_flow() for _ in range(3)] == ["pause", "pause", "resume"]


def test_a_viewer_that_reads_nothing_ends_the_pause_by_being_dropped(peers: Make) -> None:
    limits = Limits(
        viewer_messages=UNBOUNDED, max_unsent_bytes=UNBOUNDED, all_messages=40, all_bytes=UNBOUNDED, send_timeout_s=4.0
    )
    with RunningHub(server.definitions(), limits=limits) as hub:
        publisher, _stuck = peers(Publisher, hub.port), viewer(peers, hub.port)
        publisher.push_until(lambda: bool(publisher.flows))
        assert publisher.hear_flow() == "resume"
        assert viewers(hub) == 0


def test_a_delivery_is_held_back_by_its_viewers(peers: Make) -> None:
    """End to end: the server's backlog is bounded, no result is lost, all arrive once the viewer reads."""
    with RunningHub(server.definitions(), limits=MANY) as hub, delivery(_url(hub), window=8) as (made, owner):
        slow = viewer(peers, hub.port)
        total = 400
        body = b'{"event_id":"e%d","filler":"' + b"x" * 100_000 + b'"}'
        pushes = [Push("new_result", (f"e{number}",), body % number, number) for number in range(total)]
        pusher = threading.Thread(target=made.push, args=(pushes,))
        pusher.start()
        owner.wait_for(lambda: True in owner.flows)
        ids = [slow.hear()[4]["event_id"] for _ in range(total)]
        pusher.join(90)
        assert made.drain(90)
        assert ids == [f"e{number}" for number in range(total)]
        assert len(owner.confirmed()) == total


def _url(hub: RunningHub) -> str:
    return f"ws://127.0.0.1:{hub.port}/socket/websocket"
