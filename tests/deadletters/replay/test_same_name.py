"""`replay-dlq Q --to-broker OTHER --to Q`: a queue of the same name on another broker is another queue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deadletters.replay.conftest import DeadLetters
from tests.support.embedded import EmbeddedBroker
from tests.support.running import CREDENTIALS, infertool


@pytest.fixture
def other() -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker().start()
    yield broker
    broker.stop()


def test_letters_go_to_the_queue_of_the_same_name_there(
    dead: DeadLetters, other: EmbeddedBroker, tmp_path: Path
) -> None:
    dead.fill(5)
    there = DeadLetters(other, tmp_path, queue=dead.queue)
    summary = dead.replay("--to-broker", other.url, "--to", dead.queue, "--parking", f"{dead.queue}.parked")
    assert (summary["replayed"], summary["kept"]) == (5, 0)
    assert there.numbers(dead.queue) == [0, 1, 2, 3, 4]
    assert dead.numbers(dead.queue) == []


def test_an_archive_goes_there_too(dead: DeadLetters, other: EmbeddedBroker, tmp_path: Path) -> None:
    dead.fill(3)
    archive = tmp_path / "letters.jsonl"
    done = infertool("drain-dlq", dead.queue, "--to", str(archive), "--yes", "--broker", dead.broker.url, **CREDENTIALS)
    assert done.returncode == 0, done.stderr
    dead.replay("--from", str(archive), "--to-broker", other.url, "--to", dead.queue)
    assert DeadLetters(other, tmp_path, queue=dead.queue).numbers(dead.queue) == [0, 1, 2]


def test_the_same_broker_is_refused_however_its_user_is_spelt(dead: DeadLetters) -> None:
    dead.fill(1)
    for url in (dead.broker.url, dead.broker.url.replace("://", "://admin@")):
        summary: dict[str, Any] = dead.replay("--to-broker", url, "--to", dead.queue, code=2)
        assert "is the queue itself" in summary["said"]
    assert dead.numbers(dead.queue) == [0]


def test_the_same_broker_under_another_name_loses_nothing(dead: DeadLetters) -> None:
    """It cannot be told; the run ends all the same."""
    dead.fill(20)
    url = dead.broker.url.replace("127.0.0.1", "localhost")
    dead.replay("--to-broker", url, "--to", dead.queue)
    assert dead.numbers(dead.queue) == list(range(20))
