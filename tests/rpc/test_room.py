"""Room for unconfirmed requests."""

from __future__ import annotations

import threading

from infertool.rpc.room import Room
from tests.support.scripted import LONG


def test_places_are_taken_and_given_back() -> None:
    room = Room(3)
    assert room.take_some(2) == 2
    assert room.take(0.0)
    assert not room.take(0.0)
    assert room.take_some(5) == 0
    room.give(2)
    assert room.take_some(5) == 2


def test_a_place_that_is_given_back_ends_the_waits() -> None:
    room = Room(1)
    assert room.take(0.0)
    ends: list[bool] = []
    waits = [threading.Thread(target=lambda: ends.append(room.take(LONG))) for _ in range(3)]
    for wait in waits:
        wait.start()
    for _ in waits:
        room.give()
    for wait in waits:
        wait.join(LONG)
    assert ends == [True] * 3
    assert room.take_some(5) == 0
