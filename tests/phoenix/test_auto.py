"""Confirm modes echo and auto: what a server gives is found out, event by event."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infertool.errors import JoinRefusedError, UnreachableError
from infertool.phoenix.frames import Frame
from infertool.phoenix.push import Push
from tests.phoenix.collect import delivery, push_of, pushes
from tests.support.phoenix_fake import FakePhoenix, Peer, fake_phoenix, is_push, polite

PUBLIC = {"new_result": "public:results", "inference_failed": "public:alerts"}


def broadcasting(peer: Peer, frame: Frame) -> None:
    """Answer `{:noreply, ...}` after a broadcast to those who joined."""
    if is_push(frame):
        peer.broadcast(PUBLIC[frame.event], frame.event, frame.payload)
    else:
        polite(peer, frame)


def both(peer: Peer, frame: Frame) -> None:
    """Broadcast, then reply: the order of a real server."""
    if is_push(frame):
        peer.broadcast(PUBLIC[frame.event], frame.event, frame.payload)
    polite(peer, frame)


def silent(peer: Peer, frame: Frame) -> None:
    if not is_push(frame):
        polite(peer, frame)


def members(fake: FakePhoenix) -> set[str]:
    """Return the topics joined now, by the frames seen."""
    topics: set[str] = set()
    for frame in fake.frames:
        if frame.event == "phx_join":
            topics.add(frame.topic)
        elif frame.event == "phx_leave":
            topics.discard(frame.topic)
    return topics


@pytest.mark.parametrize("mode", ["echo", "auto"])
def test_echo(mode: str) -> None:
    with fake_phoenix(broadcasting) as fake, delivery(fake.url, confirm=mode) as (made, owner):
        made.push(pushes(50))
        made.push(pushes(1, "inference_failed"))
        assert made.drain(90)
        assert owner.confirmations() == {"echo"}
        assert len(fake.pushed()) == 51
        assert members(fake) == {"service:inference", "public:results", "public:alerts"}


@pytest.mark.parametrize("mode", ["echo", "auto", "reply"])
def test_results_and_alerts_may_share_a_topic(mode: str) -> None:
    """It is joined once, and each push is confirmed once."""

    def on_one_topic(peer: Peer, frame: Frame) -> None:
        if is_push(frame):
            peer.broadcast("public:all", frame.event, frame.payload)
        if mode == "reply" or not is_push(frame):
            polite(peer, frame)

    topics = {"result_topic": "public:all", "alert_topic": "public:all"}
    with fake_phoenix(on_one_topic) as fake, delivery(fake.url, confirm=mode, **topics) as (made, owner):
        made.push(pushes(20))
        made.push([push_of(number, "inference_failed") for number in range(20, 40)])
        assert made.drain(90)
        assert sorted(owner.confirmed()) == list(range(40))
        assert not owner.refused()
        assert owner.confirmations() == {"reply" if mode == "reply" else "echo"}
        expected = {"service:inference"} if mode == "reply" else {"service:inference", "public:all"}
        assert members(fake) == expected
        assert fake.events("public:all") == ([] if mode == "reply" else ["phx_join"])


def test_echo_needs_the_public_topics() -> None:
    def refuse_public(peer: Peer, frame: Frame) -> None:
        if frame.topic == "public:alerts":
            peer.reply(frame, "error", {"reason": "unauthorized"})
        else:
            polite(peer, frame)

    with (
        fake_phoenix(refuse_public) as fake,
        pytest.raises(JoinRefusedError, match="public:alerts"),
        delivery(fake.url, confirm="echo"),
    ):
        pass


@pytest.mark.parametrize("mode", ["echo", "auto"])
def test_public_joins_never_answered(mode: str) -> None:
    def ignore_public(peer: Peer, frame: Frame) -> None:
        if not frame.topic.startswith("public:"):
            polite(peer, frame)

    expected = pytest.raises(UnreachableError) if mode == "echo" else contextlib.nullcontext()
    with (
        fake_phoenix(ignore_public) as fake,
        expected,
        delivery(fake.url, confirm=mode, connect_timeout_s=3.0) as (made, owner),
    ):
        made.push(pushes(3))
        assert made.drain(90)
        assert owner.confirmations() == {"reply"}


def test_foreign_and_odd_broadcasts_confirm_nothing() -> None:
    def strange(peer: Peer, frame: Frame) -> None:
        if is_push(frame):
            payloads: list[Any] = [{"event_id": "other"}, {"event_id": 7}, {"event_id": []}, {}, [], None, "e0"]
            for payload in payloads:
                peer.broadcast("public:results", "new_result", payload)
        broadcasting(peer, frame)

    with fake_phoenix(strange) as fake, delivery(fake.url, confirm="echo") as (made, owner):
        made.push(pushes(3))
        assert made.drain(90)
        assert owner.confirmed() == [0, 1, 2]


def test_auto_leaves_the_public_topics_once_replies_come() -> None:
    with fake_phoenix(both) as fake, delivery(fake.url, confirm="auto") as (made, owner):
        assert members(fake) == {"service:inference", "public:results", "public:alerts"}
        made.push(pushes(50))
        fake.wait_for(lambda: members(fake) == {"service:inference"})
        made.push([push_of(100)])
        assert made.drain(90)
        assert str(owner.results[-1].confirmed_by) == "reply"


def test_auto_falls_back_to_barrier_with_one_warning() -> None:
    with fake_phoenix(silent) as fake, delivery(fake.url, confirm="auto", push_timeout_s=0.8) as (made, owner):
        made.push(pushes(5))
        made.push(pushes(5, "inference_failed"))
        assert made.drain(90)
        made.push([push_of(100)])
        assert made.drain(90)
        assert owner.confirmations() == {"barrier"}
        assert "phoenix.confirm" in owner.wait_for_warning("confirming by heartbeats")
        assert sum("confirming by heartbeats" in text for text in owner.warnings) == 1


def test_auto_without_public_topics() -> None:
    """A server that refuses the public topics, and replies."""

    def refuse_public(peer: Peer, frame: Frame) -> None:
        if frame.topic.startswith("public:"):
            peer.unmatched(frame)
        else:
            polite(peer, frame)

    with fake_phoenix(refuse_public) as fake, delivery(fake.url, confirm="auto") as (made, owner):
        made.push(pushes(5))
        assert made.drain(90)
        fake.peers[0].drop()
        made.push([push_of(5)])
        assert made.drain(90)
        assert owner.confirmations() == {"reply"}


def test_auto_says_that_it_cannot_hear_echoes() -> None:
    """A channel that only broadcasts, and public topics that are refused: heartbeats are not what they look like."""

    def refuse_public(peer: Peer, frame: Frame) -> None:
        if frame.topic.startswith("public:"):
            peer.reply(frame, "error", {"reason": "members only"})
        else:
            silent(peer, frame)

    with fake_phoenix(refuse_public) as fake, delivery(fake.url, confirm="auto", push_timeout_s=0.4) as (made, owner):
        made.push(pushes(2))
        assert made.drain(90)
        warning = owner.wait_for_warning("confirming by heartbeats")
    assert "public:alerts (not heard: joining public:results at ws://127.0.0.1" in warning
    assert "was refused: members only); confirming" in warning


def test_auto_joins_the_public_topics_again_for_an_event_without_reply() -> None:
    """Results are answered, failures only broadcast: the second is found out, too, and no barrier is needed."""
    with fake_phoenix() as fake, delivery(fake.url, confirm="auto", push_timeout_s=20.0) as (made, owner):
        made.push(pushes(5))
        assert made.drain(90)
        fake.wait_for(lambda: members(fake) == {"service:inference"})
        fake.on_frame = only_to_members(fake)
        made.push(pushes(1, "inference_failed"))
        assert made.drain(90)
        assert str(owner.results[-1].confirmed_by) == "echo"
        assert not any("confirming by heartbeats" in text for text in owner.warnings)
        made.push(pushes(5))
        assert made.drain(90)
        assert [str(result.confirmed_by) for result in owner.results[-5:]] == ["reply"] * 5


def test_auto_says_that_it_cannot_hear_echoes_any_more() -> None:
    """The public topics are joined, left once replies come, and refused when a failure is not answered."""
    with fake_phoenix() as fake, delivery(fake.url, confirm="auto", push_timeout_s=0.8) as (made, owner):
        made.push(pushes(5))
        assert made.drain(90)
        fake.wait_for(lambda: members(fake) == {"service:inference"})

        def refuse(peer: Peer, frame: Frame) -> None:
            if frame.topic.startswith("public:"):
                peer.reply(frame, "error", {"reason": "members only"})
            elif frame.event != "inference_failed":
                polite(peer, frame)

        fake.on_frame = refuse
        made.push(pushes(1, "inference_failed"))
        assert made.drain(90)
        assert "was refused: members only); confirming" in owner.wait_for_warning("confirming by heartbeats")


def only_to_members(fake: FakePhoenix) -> Any:
    def answer(peer: Peer, frame: Frame) -> None:
        if frame.event != "inference_failed":
            polite(peer, frame)
        elif "public:alerts" in members(fake):
            peer.broadcast("public:alerts", frame.event, frame.payload)

    return answer


def test_echoes_wait_for_the_public_rejoin() -> None:
    """After a reconnect, pushing before the public topics are joined would miss the echoes."""
    with fake_phoenix(broadcasting) as fake, delivery(fake.url, confirm="echo", push_timeout_s=60) as (made, owner):
        fake.peers[0].drop()
        made.push(pushes(20))
        assert made.drain(90)
        second = [frame for frame in fake.frames if frame.topic != "phoenix"][3:]
        assert {frame.event for frame in second[:3]} == {"phx_join"}
        assert owner.confirmations() == {"echo"}


@pytest.mark.parametrize("size", [1, 3])
def test_what_a_lost_public_topic_did_not_echo_is_pushed_again(size: int) -> None:
    """The window is full, so no later push can show that the echoes of these are missed."""
    joins: dict[str, Frame] = {}
    heard: list[Frame] = []

    def answer(peer: Peer, frame: Frame) -> None:
        if frame.event == "phx_join":
            joins[frame.topic] = frame
        if not is_push(frame):
            polite(peer, frame)
        elif len(heard) >= 2:
            broadcasting(peer, frame)
        else:
            heard.append(frame)
            if len(heard) == 2:
                peer.crash(joins["public:results"])

    batch = Push("new_results", tuple(f"e{number}" for number in range(size)), documents_of(size), -1)
    with (
        fake_phoenix(answer) as fake,
        delivery(fake.url, confirm="echo", window=2, push_timeout_s=0.4) as (made, owner),
    ):
        made.push([push_of(9), batch if size > 1 else push_of(0)])
        assert made.drain(90)
        assert owner.confirmed() == ([9] if size > 1 else [9, 0])
        # The owner of a batch pushes its results one by one.
        assert [context for context, _ in owner.refused()] == ([-1] if size > 1 else [])
        made.push(pushes(2))
        assert made.drain(90)
        assert owner.confirmed()[-2:] == [0, 1]
        assert len(fake.peers) == 1


@contextlib.contextmanager
def first_push_ends(topic: str, then: Callable[[Peer, Frame], None]) -> Iterator[FakePhoenix]:
    """A server whose channel of a public topic crashes over the first push, whose echo is lost."""
    joins: dict[str, Frame] = {}

    def answer(peer: Peer, frame: Frame) -> None:
        if frame.event == "phx_join" and frame.topic not in joins:
            joins[frame.topic] = frame
            polite(peer, frame)
        elif is_push(frame) and topic in joins and joins[topic].ref:
            peer.crash(joins[topic])
            joins[topic] = Frame(None, None, topic, "", None)
        else:
            then(peer, frame)

    with fake_phoenix(answer) as fake:
        yield fake


def test_auto_waits_for_a_public_topic_that_ends_during_the_first_push() -> None:
    with (
        first_push_ends("public:results", broadcasting) as fake,
        delivery(fake.url, confirm="auto", push_timeout_s=0.4) as (made, owner),
    ):
        made.push(pushes(1))
        assert made.drain(90)
        made.push([push_of(1)])
        assert made.drain(90)
        assert owner.confirmations() == {"echo"}
        assert not any("confirming by heartbeats" in text for text in owner.warnings)


def test_the_loss_of_a_public_topic_is_told_and_why_it_is_not_joined_again() -> None:
    def refuse(peer: Peer, frame: Frame) -> None:
        if frame.topic == "public:results":
            peer.reply(frame, "error", {"reason": "members only"})
        else:
            broadcasting(peer, frame)

    with (
        first_push_ends("public:results", refuse) as fake,
        delivery(fake.url, confirm="echo") as (made, owner),
    ):
        made.push(pushes(1))
        assert owner.wait_for_warning("public:results: the channel crashed; joining again")
        assert owner.wait_for_warning("public:results: the join was refused: members only; joining again")
        fake.wait_for(lambda: len(fake.events("public:results")) == 4)
        assert sum("members only" in text for text in owner.warnings) == 1


def documents_of(count: int) -> bytes:
    return b'{"results":[%b]}' % b",".join(push_of(number).payload for number in range(count))
