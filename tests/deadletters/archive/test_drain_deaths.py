"""A drain that is killed, or whose broker goes away, loses nothing."""

from __future__ import annotations

import json
import random
import signal
import time

import pytest

from tests.deadletters.archive.conftest import DeadQueue
from tests.support.forked import Process

pytestmark = pytest.mark.long

KILLS = 20
TOP_UP = 500
LONG_S = 120.0


def size(dead: DeadQueue) -> int:
    return dead.file.stat().st_size if dead.file.exists() else 0


def wait_for_archive(dead: DeadQueue, process: Process, wanted: int) -> bool:
    """Wait until the archive holds `wanted` bytes; say whether the drain was still at work then."""
    deadline = time.monotonic() + LONG_S
    while size(dead) < wanted:
        assert time.monotonic() < deadline, "it does not begin"
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return process.poll() is None


def check(dead: DeadQueue, count: int) -> None:
    archived = dead.archived()
    numbers = [json.loads(message.body)["n"] for message in archived]
    assert sorted(set(numbers)) == list(range(count))
    # What a death left both in the archive and in the queue was recognised by its id.
    assert len({message.id for message in archived}) == len(archived) == count


def test_killed_at_twenty_instants(dead: DeadQueue) -> None:
    if dead.broker.__class__.__name__ == "EmbeddedBroker":
        dead.suffix = "jsonl.zst"
    rng = random.Random(5)
    # Bytes that one drain surely adds; of what is compressed, fewer.
    deep = 1_000 if dead.suffix == "jsonl.zst" else 70_000
    count = 1000
    dead.fill(count)
    in_the_middle = 0
    for _ in range(KILLS):
        dead.put((dead.letter(n), b'{"n": %d}' % n) for n in range(count, count + TOP_UP))
        count += TOP_UP
        before = size(dead)
        running = dead.start_drain()
        more = rng.choice([1, min(before // 10 + 1, deep), deep])
        in_the_middle += wait_for_archive(dead, running.process, before + more)
        time.sleep(rng.uniform(0, 0.03))
        running.kill()
    assert in_the_middle > KILLS // 2, "the kills came too late"
    final = dead.start_drain()
    final.process.communicate(timeout=LONG_S)
    assert final.process.returncode in {0, 4}, final.log.read_text()
    check(dead, count)
    assert dead.drain(dead.queue) == []


@pytest.mark.activemq
def test_a_broker_that_dies_in_the_middle_and_comes_back(real_dead: DeadQueue) -> None:
    real_dead.fill(3000)
    running = real_dead.start_drain()
    assert wait_for_archive(real_dead, running.process, 200_000)
    # It must not come to its end before the kill.
    running.process.send_signal(signal.SIGSTOP)
    real_dead.broker.kill()
    running.process.send_signal(signal.SIGCONT)
    real_dead.broker.start()
    summary = running.finish(LONG_S)
    assert "connecting again" in running.log.read_text()
    assert (summary["archived"], summary["removed"], summary["remaining"]) == (3000, 3000, 0)
    check(real_dead, 3000)
