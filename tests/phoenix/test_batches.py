"""Batched pushes: what confirms them, and the outcome of unconfirmed ones."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from infertool.phoenix.delivery import UNANSWERED, Push
from infertool.phoenix.frames import Frame
from infertool.phoenix.pending_pushes import PendingPushes
from infertool.phoenix.push import BATCH_EVENT, documents, join_documents
from tests.phoenix.collect import delivery, push_of, pushes
from tests.support.hub import HubProcess
from tests.support.phoenix_fake import Peer, fake_phoenix, is_push, polite


def batch_of(*numbers: int) -> Push[tuple[int, ...]]:
    singles = [push_of(number) for number in numbers]
    ids = tuple(f"e{number}" for number in numbers)
    return Push(BATCH_EVENT, ids, join_documents([push.payload for push in singles]), numbers)


def echoing_batches(peer: Peer, frame: Frame) -> None:
    if is_push(frame):
        peer.broadcast("public:results", frame.event, frame.payload)
    else:
        polite(peer, frame)


def echoing_singly(peer: Peer, frame: Frame) -> None:
    """Broadcast each result of a batch by itself, the last one first."""
    if is_push(frame):
        for document in reversed(documents(frame)):
            peer.broadcast("public:results", "new_result", document)
    else:
        polite(peer, frame)


def ignoring_batches(peer: Peer, frame: Frame) -> None:
    """Answer single results, and batches with nothing at all."""
    if not (is_push(frame) and frame.event == BATCH_EVENT):
        polite(peer, frame)


def refusing_batches(peer: Peer, frame: Frame) -> None:
    if is_push(frame) and frame.event == BATCH_EVENT:
        peer.reply(frame, "error", {"reason": "unknown event"})
    else:
        polite(peer, frame)


def crashing_batches(peer: Peer, frame: Frame) -> None:
    if is_push(frame) and frame.event == BATCH_EVENT:
        peer.crash(frame)
    else:
        polite(peer, frame)


@pytest.mark.parametrize("server", [echoing_batches, echoing_singly])
@pytest.mark.parametrize("mode", ["echo", "auto"])
def test_echoes_of_all_ids_confirm(server: Callable[..., None], mode: str) -> None:
    with fake_phoenix(server) as fake, delivery(fake.url, confirm=mode) as (made, owner):
        made.push([batch_of(0, 1, 2), push_of(3), batch_of(4, 5)])
        assert made.drain(90)
        assert sorted(map(str, owner.confirmed())) == ["(0, 1, 2)", "(4, 5)", "3"]
        assert owner.confirmations() == {"echo"}


@pytest.mark.parametrize("mode", ["auto", "reply", "echo", "barrier", "none"])
def test_the_embedded_hub_takes_batches(mode: str) -> None:
    with HubProcess() as hub, delivery(hub.url, confirm=mode) as (made, owner):
        made.push([batch_of(0, 1), push_of(2), batch_of(3, 4)])
        assert made.drain(90)
        assert len(owner.confirmed()) == 3


@pytest.mark.parametrize("mode", ["auto", "reply", "barrier", "none"])
def test_a_channel_that_ignores_batches_confirms_none(mode: str) -> None:
    with (
        fake_phoenix(ignoring_batches) as fake,
        delivery(fake.url, confirm=mode, push_timeout_s=1.0) as (made, owner),
    ):
        made.push([batch_of(0, 1), *pushes(3)])
        assert made.drain(90)
        assert owner.refused() == [((0, 1), UNANSWERED)]
        assert sorted(owner.confirmed()) == [0, 1, 2]


@pytest.mark.parametrize("mode", ["barrier", "none"])
def test_a_channel_that_ignores_all_it_does_not_know_loses_no_batch(mode: str) -> None:
    """`handle_in(_, _, socket) -> {:noreply, socket}`, and a clause for single results that does not reply, either."""

    def heartbeats_only(peer: Peer, frame: Frame) -> None:
        if not is_push(frame):
            polite(peer, frame)

    with fake_phoenix(heartbeats_only) as fake, delivery(fake.url, confirm=mode, push_timeout_s=1.0) as (made, owner):
        made.push([batch_of(0, 1), *pushes(3)])
        assert made.drain(90)
        assert owner.refused() == [((0, 1), UNANSWERED)]
        assert sorted(owner.confirmed()) == [0, 1, 2]


@pytest.mark.parametrize("mode", ["barrier", "none"])
def test_one_confirmed_batch_lets_weak_confirmations_do_for_the_next(mode: str) -> None:
    """Until the next join: behind that may be a channel that does not know batches."""
    deaf = False

    def one_reply(peer: Peer, frame: Frame) -> None:
        if not (deaf and is_push(frame)):
            polite(peer, frame)

    with fake_phoenix(one_reply) as fake, delivery(fake.url, confirm=mode, push_timeout_s=1.0) as (made, owner):
        made.push([batch_of(0, 1)])
        assert made.drain(90)
        assert owner.confirmations() == {"reply"}
        deaf = True
        made.push([batch_of(2, 3)])
        assert made.drain(90)
        assert str(owner.results[-1].confirmed_by) == mode
        fake.peers[0].drop()
        fake.wait_for(lambda: fake.events("service:inference").count("phx_join") == 2)
        made.push([batch_of(4, 5)])
        assert made.drain(90)
        assert owner.refused() == [((4, 5), UNANSWERED)]


def test_a_refusal_is_of_the_whole_batch() -> None:
    with fake_phoenix(refusing_batches) as fake, delivery(fake.url) as (made, owner):
        made.push([batch_of(0, 1), push_of(2)])
        assert made.drain(90)
        assert owner.refused() == [((0, 1), "unknown event")]
        assert owner.confirmed() == [2]


def test_a_batch_that_crashes_the_channel_is_taken_apart_at_once() -> None:
    with fake_phoenix(crashing_batches) as fake, delivery(fake.url) as (made, owner):
        made.push([*pushes(3), batch_of(3, 4), *pushes(3)])
        assert made.drain(90)
        assert [context for context, _ in owner.refused()] == [(3, 4)]
        assert len(owner.confirmed()) == 6
        assert sum(frame.event == BATCH_EVENT for frame in fake.frames) == 1
        # First in order, so that its members are suspects that are tested alone.
        assert [result.crashes for result in owner.results if not result.confirmed_by] == [2]


def test_what_was_seen_before_a_loss_counts_for_nothing_after_it() -> None:
    pending = PendingPushes[tuple[int, ...]]()
    pending.accept([batch_of(0, 1)])
    [entry] = pending.take_sendable(0.0, 10.0)
    pending.mark_sent(entry, "1", 0.0)
    assert pending.settle_event("e0") is None
    pending.lose(connection=True)
    [again] = pending.take_sendable(0.0, 10.0)
    pending.mark_sent(again, "2", 1.0)
    assert pending.settle_event("e1") is None
    assert pending.settle_event("e1") is None
    assert pending.settle_event("e0") is entry
    assert not pending


def test_one_id_twice_in_a_batch() -> None:
    pending = PendingPushes[tuple[int, ...]]()
    pending.accept([batch_of(0, 0)])
    [entry] = pending.take_sendable(0.0, 10.0)
    pending.mark_sent(entry, "1", 0.0)
    assert pending.settle_event("e0") is None
    assert pending.settle_event("e0") is entry
    assert pending.settle_event("e0") is None


def test_the_payload_of_a_batch() -> None:
    assert orjson.loads(batch_of(1, 2).payload) == {"results": [{"event_id": "e1"}, {"event_id": "e2"}]}
