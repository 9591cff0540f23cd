"""Delivery to servers without faults: confirmations, window, order, flow, stop."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from infertool.errors import JoinRefusedError
from infertool.phoenix.delivery import ConfirmedBy, Delivery
from infertool.phoenix.frames import Frame
from infertool.phoenix.push import DeliveryClosedError, Push
from infertool.telemetry.signals import NONE_UNCONFIRMED
from tests.phoenix.collect import delivery, push_of, pushes, wait_until
from tests.support.phoenix_fake import FakePhoenix, Peer, fake_phoenix, is_push, polite


def silent(peer: Peer, frame: Frame) -> None:
    """Answer joins and heartbeats, and no push."""
    if not is_push(frame):
        polite(peer, frame)


def in_thread(call: object) -> threading.Thread:
    thread = threading.Thread(target=call)  # type: ignore[arg-type]  # a callable
    thread.start()
    return thread


def test_replies_confirm() -> None:
    with fake_phoenix() as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(500))
        assert made.drain(90)
        assert sorted(owner.confirmed()) == list(range(500))
        assert owner.confirmations() == {"reply"}
        assert made.outstanding() == 0
        assert [payload["event_id"] for payload in fake.pushed()] == [f"e{number}" for number in range(500)]


def test_every_frame_bears_the_join_ref_and_its_own_ref() -> None:
    with fake_phoenix() as fake, delivery(fake.url) as (made, _):
        made.push(pushes(3))
        assert made.drain(90)
    join, *sent = fake.frames
    assert (join.event, join.join_ref) == ("phx_join", join.ref)
    assert all(frame.join_ref == join.ref for frame in sent)
    assert len({frame.ref for frame in fake.frames}) == 4
    assert all(isinstance(frame.ref, str) for frame in fake.frames)


def test_replies_out_of_order() -> None:
    held: list[Frame] = []

    def backwards(peer: Peer, frame: Frame) -> None:
        if not is_push(frame):
            polite(peer, frame)
        elif len(held) < 9:
            held.append(frame)
        else:
            for earlier in (frame, *reversed(held)):
                polite(peer, earlier)

    with fake_phoenix(backwards) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(10))
        assert made.drain(90)
        assert owner.confirmed() == list(range(9, -1, -1))
        assert len(fake.pushed()) == 10


@pytest.mark.parametrize(("status", "rejection"), [("error", "bad_payload"), ("busy", "busy: bad_payload")])
def test_refusal(status: str, rejection: str) -> None:
    def refuse(peer: Peer, frame: Frame) -> None:
        if is_push(frame) and frame.payload["event_id"] == "e1":
            peer.reply(frame, status, {"reason": "bad_payload"})
        else:
            polite(peer, frame)

    with fake_phoenix(refuse) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(3))
        assert made.drain(90)
        assert owner.confirmed() == [0, 2]
        assert owner.refused() == [(1, rejection)]


def test_window_blocks_and_opens() -> None:
    opened = threading.Event()
    held: list[tuple[Peer, Frame]] = []

    def hold(peer: Peer, frame: Frame) -> None:
        if not is_push(frame) or opened.is_set():
            polite(peer, frame)
        else:
            held.append((peer, frame))

    with fake_phoenix(hold) as fake, delivery(fake.url, window=8) as (made, owner):
        pusher = in_thread(lambda: made.push(pushes(20)))
        fake.wait_for(lambda: len(fake.pushed()) == 8)
        assert made.outstanding() == 8
        assert pusher.is_alive()
        opened.set()
        for peer, frame in held:
            polite(peer, frame)
        pusher.join(90)
        assert made.drain(90)
        assert sorted(owner.confirmed()) == list(range(20))


def test_stop_wakes_those_who_wait_and_tells_what_was_not_taken() -> None:
    with fake_phoenix(silent) as fake, delivery(fake.url, window=2) as (made, _):
        caught: list[DeliveryClosedError] = []

        def push() -> None:
            try:
                made.push(pushes(5))
            except DeliveryClosedError as error:
                caught.append(error)

        pusher = in_thread(push)
        fake.wait_for(lambda: len(fake.pushed()) == 2)
        made.stop()
        pusher.join(90)
        assert [push.context for push in caught[0].unpushed] == [2, 3, 4]
        assert made.outstanding() == 2
        assert not made.drain(0.05)
        with pytest.raises(DeliveryClosedError):
            made.push([push_of(9)])


def test_what_was_taken_before_stop_is_still_delivered() -> None:
    gate = threading.Event()

    def later(peer: Peer, frame: Frame) -> None:
        if is_push(frame):
            gate.wait(90)
        polite(peer, frame)

    with fake_phoenix(later) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(5))
        made.stop()
        gate.set()
        assert made.drain(90)
        assert owner.confirmed() == list(range(5))


def flow(fake: FakePhoenix, state: str) -> None:
    fake.peers[-1].broadcast("service:inference", "flow", {"state": state})


def test_pause_and_resume() -> None:
    with fake_phoenix() as fake, delivery(fake.url) as (made, owner):
        flow(fake, "pause")
        owner.wait_for(lambda: owner.flows == [True])
        pusher = in_thread(lambda: made.push(pushes(3)))
        pusher.join(0.2)
        assert pusher.is_alive()
        assert not fake.pushed()
        flow(fake, "resume")
        pusher.join(90)
        assert made.drain(90)
        owner.wait_for(lambda: owner.flows == [True, False])


def test_a_rejoin_ends_a_pause() -> None:
    with fake_phoenix() as fake, delivery(fake.url) as (made, owner):
        flow(fake, "pause")
        owner.wait_for(lambda: owner.flows == [True])
        fake.peers[0].drop()
        made.push(pushes(1))
        assert made.drain(90)
        owner.wait_for(lambda: owner.flows == [True, False])


def test_a_ref_of_very_many_digits_answers_nothing() -> None:
    """Python reads no such number, and an error in the thread that reads would end the delivery."""

    def answer(peer: Peer, frame: Frame) -> None:
        if is_push(frame):
            peer.send(None, "9" * 5000, frame.topic, "phx_reply", {"response": {}, "status": "error"})
        polite(peer, frame)

    with fake_phoenix(answer) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(3))
        assert made.drain(90)
        assert owner.confirmed() == [0, 1, 2]
        assert len(fake.peers) == 1


def test_odd_flow_signals_are_ignored() -> None:
    with fake_phoenix() as fake, delivery(fake.url) as (made, owner):
        payloads: list[Any] = [None, [], "pause", {"state": "stop"}, {}]
        for payload in payloads:
            fake.peers[0].broadcast("service:inference", "flow", payload)
        made.push(pushes(1))
        assert made.drain(90)
        assert owner.flows == []


def test_none_confirms_what_was_written() -> None:
    with fake_phoenix(silent) as fake, delivery(fake.url, confirm="none") as (made, owner):
        made.push(pushes(100))
        assert made.drain(90)
        assert owner.confirmations() == {str(ConfirmedBy.NONE)}
        fake.wait_for(lambda: len(fake.pushed()) == 100)


def test_barrier() -> None:
    with fake_phoenix(silent) as fake, delivery(fake.url, confirm="barrier", window=10) as (made, owner):
        made.push(pushes(100))
        assert made.drain(90)
        assert owner.confirmations() == {str(ConfirmedBy.BARRIER)}
        assert sorted(owner.confirmed()) == list(range(100))
        assert len(fake.events("phoenix")) >= 10


def test_a_first_join_refused_is_an_error() -> None:
    def refuse(peer: Peer, frame: Frame) -> None:
        peer.reply(frame, "error", {"reason": "unauthorized"})

    with fake_phoenix(refuse) as fake, pytest.raises(JoinRefusedError) as caught, delivery(fake.url):
        pass
    error = caught.value
    assert (error.topic, error.reason, error.address) == ("service:inference", "unauthorized", fake.url)


def test_unmatched_topic_is_a_clear_error() -> None:
    with (
        fake_phoenix(Peer.unmatched) as fake,
        pytest.raises(JoinRefusedError, match="unmatched topic") as caught,
        delivery(fake.url, topic="service:typo"),
    ):
        pass
    assert "name" in caught.value.advice
    assert len(fake.frames) == 1


def test_join_params() -> None:
    with fake_phoenix() as fake, delivery(fake.url, join_params={"region": "eu"}):
        assert fake.frames[0].payload == {"region": "eu"}


def test_large_pushes() -> None:
    """5 MB, with small ones around it."""
    from infertool.phoenix.delivery import Push

    large = Push("new_result", ("big",), b'{"event_id":"big","x":"%b"}' % (b"x" * 5_000_000), -1)

    def echo(peer: Peer, frame: Frame) -> None:
        peer.reply(frame, "ok", frame.payload)

    with fake_phoenix(echo) as fake, delivery(fake.url) as (made, owner):
        made.push([push_of(0), large, push_of(1)])
        assert made.drain(90)
        assert owner.confirmed() == [0, -1, 1]


def test_outstanding_counts_until_the_owner_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drain must not return while the last results are still being handed over."""
    gate = threading.Event()
    with fake_phoenix() as fake, delivery(fake.url) as (made, owner):
        keep = owner.on_results

        def slow(results: object) -> None:
            gate.wait(90)
            keep(results)  # type: ignore[arg-type]  # as given

        monkeypatch.setattr(made, "_on_results", slow)
        made.push(pushes(1))
        assert not made.drain(0.2)
        assert made.outstanding() == 1
        gate.set()
        assert made.drain(90)
        assert owner.confirmed() == [0]


def test_two_pushers_share_one_delivery() -> None:
    with fake_phoenix() as fake, delivery(fake.url, window=16) as (made, owner):
        threads = [in_thread(lambda part=part: _push_each(made, part)) for part in range(2)]
        for thread in threads:
            thread.join(90)
        assert made.drain(90)
        assert sorted(owner.confirmed()) == list(range(400))


def _push_each(made: Delivery[int], part: int) -> None:
    for number in range(part * 200, part * 200 + 200):
        made.push([push_of(number)])


def test_unconfirmed_pushes_are_counted_and_timed() -> None:
    with fake_phoenix(silent) as fake:
        with delivery(fake.url, window=3) as (made, owner):
            assert made.pending() == NONE_UNCONFIRMED
            started = time.monotonic()
            blocked = threading.Thread(target=push_until_closed, args=(made, pushes(5)))
            blocked.start()
            fake.wait_for(lambda: len(fake.pushed()) == 3)
            wait_until(lambda: made.pending().count == 5)  # two wait for room
            assert 0 < made.pending().oldest_s <= time.monotonic() - started
            for frame in [frame for frame in fake.frames if is_push(frame)]:
                fake.peers[0].reply(frame)
            fake.wait_for(lambda: len(fake.pushed()) == 5)
            wait_until(lambda: made.pending().count == 2)
            for frame in [frame for frame in fake.frames if is_push(frame)][3:]:
                fake.peers[0].reply(frame)
            owner.wait_for(lambda: len(owner.results) == 5)
            wait_until(lambda: made.pending() == NONE_UNCONFIRMED)
        blocked.join()


def test_pushes_wait_in_a_pause_as_well() -> None:
    with fake_phoenix() as fake, delivery(fake.url) as (made, owner):
        fake.peers[0].broadcast("service:inference", "flow", {"state": "pause"})
        owner.wait_for(lambda: owner.flows == [True])
        blocked = threading.Thread(target=push_until_closed, args=(made, pushes(4)))
        blocked.start()
        wait_until(lambda: made.pending().count == 4)
        fake.peers[0].broadcast("service:inference", "flow", {"state": "resume"})
        blocked.join()
        owner.wait_for(lambda: len(owner.results) == 4)
        wait_until(lambda: made.pending() == NONE_UNCONFIRMED)


def push_until_closed(made: Delivery[int], wanted: Sequence[Push[int]]) -> None:
    with contextlib.suppress(DeliveryClosedError):
        made.push(wanted)
