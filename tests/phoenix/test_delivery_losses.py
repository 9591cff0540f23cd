"""Delivery against servers that lose, crash, stall and close: nothing is lost; but for crashes, order is kept."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from infertool.net.connection_state import ConnectionState
from infertool.phoenix.delivery import Push
from infertool.phoenix.frames import Frame
from infertool.phoenix.notices import CRASHED
from tests.phoenix.collect import delivery, push_of, pushes, wait_until
from tests.support.phoenix_fake import OnFrame, Peer, fake_phoenix, is_push, polite
from tests.support.ports import free_port


def event_ids(payloads: list[Any]) -> list[str]:
    return [payload["event_id"] for payload in payloads]


class OnceAt:
    """Polite, but does `what` to the first frame that `when` says."""

    def __init__(self, when: Any, what: OnFrame) -> None:
        self.when = when
        self.what = what
        self.done = False

    def __call__(self, peer: Peer, frame: Frame) -> None:
        if not self.done and self.when(frame):
            self.done = True
            self.what(peer, frame)
        else:
            polite(peer, frame)


def is_event(event_id: str) -> Any:
    return lambda frame: is_push(frame) and frame.payload["event_id"] == event_id


def drop(peer: Peer, _frame: Frame) -> None:
    peer.drop()


@pytest.mark.parametrize("code", [1000, 1001, 1007, 1009, 1011, 1012])
def test_close_codes(code: int) -> None:
    server = OnceAt(is_event("e3"), lambda peer, _: peer.ws.close(code))
    with fake_phoenix(server) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(10))
        assert made.drain(90)
        assert sorted(owner.confirmed()) == list(range(10))
        event = owner.wait_for_link(ConnectionState.LOST, 1)
        assert event.reason == f"closed by the server with {code}"
        assert event.retry_in_s is not None
        owner.wait_for_link(ConnectionState.CONNECTED, 2)


def test_no_close_frame() -> None:
    with fake_phoenix(OnceAt(is_event("e3"), drop)) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(10))
        assert made.drain(90)
        assert sorted(owner.confirmed()) == list(range(10))
        assert "without a close frame" in owner.wait_for_link(ConnectionState.LOST, 1).reason
        again = event_ids(fake.pushed(fake.frames[-1].join_ref))
        assert again == [f"e{number}" for number in range(3, 10)]


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 20, b"\x81\x05hello", b"\x82\x03\x09ab", b'\x81\x0e["1","2","3"]!', b"\x83\x00"]
)
def test_garbage_after_the_upgrade(garbage: bytes) -> None:
    server = OnceAt(is_event("e3"), lambda peer, _: peer.ws.socket.sendall(garbage))
    with fake_phoenix(server) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(10))
        assert made.drain(90)
        assert sorted(owner.confirmed()) == list(range(10))
        assert "the server" in owner.wait_for_link(ConnectionState.LOST, 1).reason


def test_a_reply_without_status_ends_the_connection() -> None:
    def answer(peer: Peer, frame: Frame) -> None:
        peer.send(frame.join_ref, frame.ref, frame.topic, "phx_reply", [])

    with fake_phoenix(OnceAt(is_event("e3"), answer)) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(10))
        assert made.drain(90)
        assert sorted(owner.confirmed()) == list(range(10))
        assert "phx_reply" in owner.wait_for_link(ConnectionState.LOST, 1).reason


def test_restart_of_the_server() -> None:
    """While it is gone the window fills, then `push` blocks; all is delivered when it is back, in order."""
    port = free_port()
    with fake_phoenix(port=port) as first:
        context = delivery(first.url, window=4)
        made, owner = context.__enter__()
        made.push(pushes(2))
        assert made.drain(90)
    owner.wait_for_link(ConnectionState.LOST, 1)
    pusher = threading.Thread(target=made.push, args=([push_of(number) for number in range(2, 12)],))
    pusher.start()
    wait_until(lambda: made.outstanding() == 4)
    pusher.join(0.3)
    assert pusher.is_alive()
    assert made.outstanding() == 4
    with fake_phoenix(port=port) as second:
        pusher.join(90)
        assert made.drain(90)
        assert owner.confirmed() == list(range(12))
        assert event_ids(second.pushed()) == [f"e{number}" for number in range(2, 12)]
        context.__exit__(None, None, None)


def test_unanswered_pushes_are_pushed_again() -> None:
    server = OnceAt(is_event("e1"), lambda _peer, _frame: None)
    with fake_phoenix(server) as fake, delivery(fake.url, push_timeout_s=0.4) as (made, owner):
        made.push(pushes(3))
        assert made.drain(90)
        assert owner.confirmed() == [0, 2, 1]
        assert event_ids(fake.pushed())[:4] == ["e0", "e1", "e2", "e1"]
        assert len(fake.peers) == 1


def test_a_late_reply_counts_after_a_repeat() -> None:
    """A server slower than the push timeout must not make us push for ever."""
    held: list[Frame] = []

    def slow(peer: Peer, frame: Frame) -> None:
        if not is_event("e0")(frame):
            polite(peer, frame)
        elif held:
            polite(peer, held[0])
        else:
            held.append(frame)

    with fake_phoenix(slow) as fake, delivery(fake.url, push_timeout_s=0.4) as (made, owner):
        made.push(pushes(2))
        assert made.drain(90)
        assert owner.confirmed() == [1, 0]


def test_heartbeats_never_answered() -> None:
    """The connection is ended, and the next one serves."""

    def deaf(peer: Peer, frame: Frame) -> None:
        if peer.number or (frame.topic != "phoenix" and not is_push(frame)):
            polite(peer, frame)

    with fake_phoenix(deaf) as fake, delivery(fake.url, heartbeat_s=0.3) as (made, owner):
        made.push(pushes(5))
        assert made.drain(90)
        assert "heartbeat" in owner.wait_for_link(ConnectionState.LOST, 1).reason
        assert fake.events("phoenix")[0] == "heartbeat"


def test_heartbeats_are_not_starved_by_traffic() -> None:
    """Though a busy machine may take longer than one of a second and a half for its answer."""
    assert any(is_kept_in_traffic(heartbeat_s) for heartbeat_s in (1.5, 6.0, 24.0))


def is_kept_in_traffic(heartbeat_s: float) -> bool:
    with fake_phoenix() as fake, delivery(fake.url, heartbeat_s=heartbeat_s, window=16) as (made, owner):
        number = 0
        while len(fake.events("phoenix")) < 3:
            made.push([push_of(number)])
            number += 1
        assert made.drain(90)
        return {event.state for event in owner.links} == {ConnectionState.CONNECTING, ConnectionState.CONNECTED}


@pytest.mark.parametrize("end", [Peer.crash, Peer.close_channel])
def test_channel_ends_once(end: OnFrame) -> None:
    with fake_phoenix(OnceAt(is_event("e2"), end)) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(5))
        assert made.drain(90)
        assert sorted(owner.confirmed()) == list(range(5))
        joins = [frame.join_ref for frame in fake.frames if frame.event == "phx_join"]
        assert len(joins) == 2
        assert len(set(joins)) == 2
        assert len(fake.peers) == 1
        owner.wait_for_warning("new_result e2")


def test_queue_behind_a_crash_answered_unmatched() -> None:
    """Late "unmatched topic" answers to pushes of the crashed join must not end the next one."""
    behind: list[Frame] = []

    def crash(peer: Peer, frame: Frame) -> None:
        if frame.event == "phx_join":
            polite(peer, frame)
            for late in behind:
                peer.unmatched(late)
        elif is_push(frame) and not behind:
            behind.append(frame)
            peer.crash(frame)
        elif is_push(frame) and frame.join_ref == behind[0].join_ref:
            behind.append(frame)
            peer.unmatched(frame)
        else:
            polite(peer, frame)

    with fake_phoenix(crash) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(5))
        assert made.drain(90)
        assert sorted(owner.confirmed()) == list(range(5))
        assert fake.events("service:inference").count("phx_join") == 2


def test_the_server_forgot_the_join() -> None:
    with fake_phoenix(OnceAt(is_event("e0"), Peer.unmatched)) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(1))
        assert made.drain(90)
        assert owner.confirmed() == [0]
        assert fake.events("service:inference").count("phx_join") == 2


def test_a_push_that_always_crashes_the_channel_is_found() -> None:
    def fragile(peer: Peer, frame: Frame) -> None:
        if is_push(frame) and frame.payload["event_id"] == "e3":
            peer.crash(frame)
            dead.add(frame.join_ref)
        elif is_push(frame) and frame.join_ref in dead:
            peer.unmatched(frame)
        else:
            polite(peer, frame)

    dead: set[object] = set()
    with fake_phoenix(fragile) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(20))
        owner.wait_for(lambda: len(owner.results) == 20)
        assert owner.refused() == [(3, CRASHED)]
        assert sorted(owner.confirmed()) == [number for number in range(20) if number != 3]
        assert event_ids(fake.pushed()).count("e3") <= 3
        assert "service:inference" in owner.wait_for_warning("new_result e3 ends it")


@pytest.mark.parametrize("code", [1007, 1009, 1011])
def test_a_push_that_always_ends_the_connection_is_found(code: int) -> None:
    """Such as one larger than the server takes."""

    def fragile(peer: Peer, frame: Frame) -> None:
        if is_push(frame) and frame.payload["event_id"] == "e3":
            peer.ws.close(code)
        else:
            polite(peer, frame)

    with fake_phoenix(fragile) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(20))
        owner.wait_for(lambda: len(owner.results) == 20)
        [(culprit, reason)] = owner.refused()
        assert culprit == 3
        assert str(reason).startswith(f"closed by the server with {code}")
        assert sorted(owner.confirmed()) == [number for number in range(20) if number != 3]


def test_a_refused_rejoin_is_tried_again() -> None:
    joins: list[Frame] = []

    def refuse_second(peer: Peer, frame: Frame) -> None:
        if frame.event == "phx_join":
            joins.append(frame)
            if len(joins) == 2:
                peer.unmatched(frame)
                return
        polite(peer, frame)

    with fake_phoenix(refuse_second) as fake, delivery(fake.url) as (made, owner):
        fake.peers[0].drop()
        owner.wait_for_link(ConnectionState.CONNECTED, 2)
        made.push(pushes(2))
        assert made.drain(90)
        assert len(joins) == 3
        owner.wait_for_warning("unmatched topic")


def test_an_unanswered_rejoin_is_left_and_joined_again() -> None:
    joins: list[Frame] = []

    def ignore_second(peer: Peer, frame: Frame) -> None:
        if frame.event == "phx_join":
            joins.append(frame)
            if len(joins) == 2:
                return
        polite(peer, frame)

    with fake_phoenix(ignore_second) as fake, delivery(fake.url, connect_timeout_s=5.0) as (made, _):
        fake.peers[0].drop()
        made.push(pushes(2))
        assert made.drain(90)
        leave = next(frame for frame in fake.frames if frame.event == "phx_leave")
        assert leave.join_ref == joins[1].ref


def test_close_on_a_peer_that_reads_nothing() -> None:
    """The writer is stuck in a full socket; close still returns and ends all threads."""
    stuck = threading.Event()

    def deaf(peer: Peer, frame: Frame) -> None:
        polite(peer, frame)
        if is_push(frame):
            stuck.wait(90)

    payload = b'{"event_id":"e","x":"%b"}' % (b"x" * 1_000_000)
    with fake_phoenix(deaf) as fake:
        with delivery(fake.url, window=64) as (made, _):
            made.push([Push("new_result", ("e",), payload, number) for number in range(40)])
            fake.wait_for(fake.pushed)
        stuck.set()


def test_close_while_it_reconnects() -> None:
    with fake_phoenix() as fake:
        context = delivery(fake.url)
        _, owner = context.__enter__()
    owner.wait_for_link(ConnectionState.LOST, 1)
    context.__exit__(None, None, None)
    owner.wait_for(lambda: owner.links[-1].state is ConnectionState.CLOSED)
