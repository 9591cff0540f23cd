"""Which failed events share a transaction."""

from __future__ import annotations

import random

import pytest

from infertool.consumer.attempt import Event, FailedEvent, Failure
from infertool.consumer.dead_letter_writer import MoveQueue, halve
from tests.support.messages import message

MOST_MOVES, MOST_BYTES = 100, 8_388_608
FAILURE = Failure("infer", "E", "no")


def failed(count: int, body: bytes = b"{}") -> list[FailedEvent]:
    return [FailedEvent(Event(message(body), f"e-{n}"), FAILURE) for n in range(count)]


def filled(dead: list[FailedEvent]) -> MoveQueue:
    queue = MoveQueue(MOST_MOVES, MOST_BYTES)
    queue.add(dead, 0.0)
    return queue


def test_as_many_as_a_transaction_holds_in_their_order() -> None:
    dead = failed(250)
    queue = filled(dead)
    batches = [queue.take(0.0) for _ in range(4)]
    assert [len(batch) for batch in batches] == [MOST_MOVES, MOST_MOVES, 50, 0]
    assert [each for batch in batches for each in batch] == dead


def test_large_bodies_share_no_transaction() -> None:
    queue = filled(failed(3, b"x" * (MOST_BYTES // 2 + 1)))
    assert [len(queue.take(0.0)) for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("guilty", [{0}, {40}, {99}, {3, 4}, {0, 50, 99}, set(range(100))])
def test_the_guilty_are_found_in_halves(guilty: set[int]) -> None:
    dead = failed(100)
    bad = [dead[n] for n in guilty]
    queue = filled(dead)
    moved: list[FailedEvent] = []
    losses = 0
    for _ in range(1000):
        batch = queue.take(0.0)
        if not batch:
            break
        if not any(each in bad for each in batch):
            moved += batch
            continue
        losses += 1
        if alone := halve(batch):
            alone.not_before = 1e9
        queue.add(batch, 0.0)
    assert sorted(each.event.event_id for each in moved) == sorted(e.event.event_id for e in dead if e not in bad)
    assert [each.failures for each in bad] == [1] * len(bad)
    assert losses <= 8 * len(guilty)


def test_what_waits_holds_nothing_up_and_comes_in_time() -> None:
    dead = failed(3)
    dead[0].not_before = 10.0
    queue = filled(dead)
    assert queue.take(0.0) == dead[1:]
    assert (queue.take(0.0), queue.wait_s(4.0)) == ([], 6.0)
    assert queue.take(10.0) == dead[:1]
    assert queue.wait_s(10.0) is None


def test_a_broker_that_comes_and_goes_holds_up_nothing_for_ever() -> None:
    """Each transaction fails by chance, and the broker delivers again: all get through, in few more than one each."""
    chance = random.Random(3)
    queue = filled(failed(100))
    moved = tries = 0
    while batch := queue.take(1e9):
        tries += 1
        if chance.random() < 0.5:
            halve(batch)
            queue.add(batch, 1e9)
        else:
            moved += len(batch)
    assert moved == 100
    assert tries < 1000
