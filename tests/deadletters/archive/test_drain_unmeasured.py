"""Draining where the broker does not tell how much there is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from infertool import brokers
from infertool.deadletters.archive.writer import ArchiveWriter
from infertool.deadletters.replay.drain import Drain, Progress
from infertool.deadletters.replay.take import Bus, Taker
from tests.deadletters.archive.conftest import DeadQueue
from tests.support.brokers import settings

BEGAN = 1_800_000_000.0
AFTERWARDS = "2027-02-01T00\\c00\\c00Z"


@pytest.fixture
def drain(dead: DeadQueue) -> Callable[[], Any]:
    def drain() -> Progress:
        bus = Bus(lambda linked: brokers.open(settings(dead.broker.url), on_connection=linked), 30, lambda _: None)
        with ArchiveWriter(dead.file) as archive, Taker(bus, dead.queue, stop=threading.Event()) as taker:
            work = Drain(archive, depth=None, began=BEGAN, on_progress=lambda _: None)
            work.run(taker)
        return work.progress

    return drain


def test_it_ends_when_nothing_more_comes(dead: DeadQueue, drain: Callable[[], Any]) -> None:
    dead.fill(250)
    assert drain().removed == 250
    assert dead.archived_numbers() == list(range(250))


def test_it_ends_at_the_first_that_died_afterwards(dead: DeadQueue, drain: Callable[[], Any]) -> None:
    dead.fill(150)
    dead.put((dead.letter(n, dlq_failed_at=AFTERWARDS), b'{"n": %d}' % n) for n in range(150, 160))
    assert drain().removed == 150
    assert dead.archived_numbers() == list(range(150))
    assert dead.numbers(dead.queue) == list(range(150, 160))
