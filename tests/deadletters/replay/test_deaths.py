"""Nothing is lost or doubled when the replay, or the broker, dies in the middle."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter

import pytest

from infertool import brokers
from infertool.brokers.port import Broker
from tests.deadletters.replay.conftest import DeadLetters
from tests.support.brokers import settings
from tests.support.forked import Process
from tests.support.present import present

pytestmark = pytest.mark.long

LETTERS = 2100
KILLS = 20
LONG_S = 120.0


def wait_until_moving(broker: Broker, dead: DeadLetters, process: Process) -> bool:
    """Wait until the run has begun to take letters out; False when it ended before."""
    before = present(broker.measure(dead.queue, LONG_S)).dequeued
    deadline = time.monotonic() + LONG_S
    while present(broker.measure(dead.queue, LONG_S)).dequeued == before:
        assert time.monotonic() < deadline, "it does not begin"
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    return True


# The rate of the second gives the kills time to hit a broker that is faster than a disk.
@pytest.mark.parametrize("options", [["--where", "n % 7 == 3"], ["--rate", "500/s"]], ids=["filter", "all"])
def test_killed_at_random_instants(dead: DeadLetters, options: list[str]) -> None:
    dead.fill(LETTERS)
    watch = brokers.open(settings(dead.broker.url))
    watch.connect()
    rng = random.Random(5)
    in_the_middle = 0
    for _ in range(KILLS):
        run = dead.start(*options, "--batch", "5")
        if wait_until_moving(watch, dead, run.process):
            time.sleep(rng.uniform(0, 0.6))
            in_the_middle += run.process.poll() is None
        run.kill()
    watch.close(5)
    assert in_the_middle > KILLS // 2, "the kills came too late"
    final = dead.start(*options)
    final.process.communicate(timeout=LONG_S)
    assert final.process.returncode in {0, 4}, final.log.read_text()
    there, here = dead.numbers(dead.origin), dead.numbers(dead.queue)
    assert dead.drain(dead.staging) == []
    assert Counter(there + here) == Counter(range(LETTERS))
    wanted = [n for n in range(LETTERS) if n % 7 == 3] if "--where" in options else list(range(LETTERS))
    assert sorted(there) == wanted


@pytest.mark.activemq
def test_a_broker_restart_in_the_middle(real_dead: DeadLetters) -> None:
    real_dead.fill(LETTERS)
    watch = brokers.open(settings(real_dead.broker.url))
    watch.connect()
    run = real_dead.start("--where", "n % 7 == 3", "--batch", "10")
    assert wait_until_moving(watch, real_dead, run.process)
    # It must not come to its end before the kill.
    run.process.send_signal(signal.SIGSTOP)
    watch.close(5)
    real_dead.broker.kill()
    run.process.send_signal(signal.SIGCONT)
    real_dead.broker.start()
    summary = run.finish(LONG_S)
    there, here = real_dead.numbers(real_dead.origin), real_dead.numbers(real_dead.queue)
    assert "connecting again" in run.log.read_text()
    assert sorted(there) == [n for n in range(LETTERS) if n % 7 == 3]
    assert Counter(there + here) == Counter(range(LETTERS))
    assert (summary["replayed"], summary["not_matching"]) == (len(there), len(here))
    assert summary["left_in_staging"] == 0
