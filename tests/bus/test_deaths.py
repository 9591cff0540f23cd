"""Nothing is lost when the consumer dies or is stopped."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from tests.bus.conftest import Bus
from tests.bus.test_interrupts import HANGS
from tests.support.running import Running

pytestmark = pytest.mark.long

LONG = 180
EVENTS = 2000
KILLS = 20


def assert_none_lost(bus: Bus, ids: list[str]) -> None:
    """Check that every event had a result or an alert, and each dead letter its alert; duplicates carry known ids."""
    assert bus.viewer.wait(len(ids), LONG)
    dead = bus.dead_ids()
    assert bus.viewer.seen == set(ids)
    assert set(dead) <= set(bus.viewer.alerts)
    assert bus.viewer.results.keys() | set(dead) == set(ids)
    assert bus.left() == 0


def consume_copies(bus: Bus) -> None:
    """Consume what came again after its outcome: a run that is stopped may leave such copies in the queue."""
    bus.consume("--exit-when-idle", "1s", model="sim:?min_ms=0&max_ms=0&failure_rate=0").finish()


def kill_in_the_middle(bus: Bus, count: int, start: Callable[[], Running], *, kills: int, apart: int) -> None:
    """Start and kill consumers one after the other, each after up to `apart` events of `count`.

    On a busy machine a kill may come late: at least half of them must find work left.
    """
    rng = random.Random(4)
    in_the_middle = 0
    for _ in range(kills):
        wanted = len(bus.viewer.seen) + rng.randrange(1, apart)
        consumer = start()
        assert bus.viewer.wait(min(wanted, count), LONG)
        time.sleep(rng.uniform(0, 0.05))
        consumer.kill()
        in_the_middle += len(bus.viewer.seen) < count
    assert in_the_middle >= kills // 2, "the kills came after the work"


def test_killed_at_random_instants(bus: Bus) -> None:
    ids = bus.send(EVENTS, poison=20)
    # As slow as this, a kill that comes half a second late still finds work.
    options, model = ("--concurrency", "8"), "sim:?min_ms=20&max_ms=60&failure_rate=0.02"
    kill_in_the_middle(bus, EVENTS, lambda: bus.consume(*options, model=model), kills=KILLS, apart=EVENTS // KILLS)
    bus.consume("--exit-when-idle", "1s", "--concurrency", "8").finish()
    assert_none_lost(bus, ids)


def test_sigterm_finishes_what_is_in_work(bus: Bus) -> None:
    ids = bus.send(400)
    consumer = bus.consume("--concurrency", "8", model="sim:?min_ms=20&max_ms=40&failure_rate=0")
    assert bus.viewer.wait(50, LONG)
    consumer.terminate()
    summary = consumer.finish(LONG)
    assert 50 <= summary["succeeded"] < 400
    assert summary["pushed"] == summary["confirmed"] == summary["succeeded"]
    bus.consume("--exit-when-idle", "1s").finish()
    assert_none_lost(bus, ids)
    assert set(bus.viewer.results.values()) == {1}, "a graceful stop makes no duplicates"


def test_a_stop_does_not_wait_for_a_hung_model_past_the_deadline(bus: Bus) -> None:
    bus.send(3)
    (bus.folder / "hangs.py").write_text(HANGS)
    consumer = bus.consume(model=f"{bus.folder / 'hangs.py'}:predict", INFERTOOL_CONSUME__STOP_DEADLINE_S="1")
    consumer.wait_for("in work")
    consumer.terminate()
    # The model never returns: the consumer ends because the deadline is over, or not at all.
    summary = consumer.finish(LONG)
    assert summary["handed_back"] == summary["received"]
    assert bus.consume("--exit-when-idle", "1s").finish()["succeeded"] == 3


def test_an_event_that_kills_the_consumer_three_times_is_dead_lettered(bus: Bus) -> None:
    ids = bus.send(1)
    killer = bus.folder / "killer.py"
    killer.write_text("import os\n\n\ndef predict(payload):\n    os.kill(os.getpid(), 9)\n")
    deaths = 0
    while deaths < 5:
        consumer = bus.consume("--exit-when-idle", "3s", model=f"{killer}:predict")
        if consumer.process.wait(LONG) == 0:
            break
        deaths += 1
    assert deaths == 3
    assert list(bus.viewer.alerts) == ids
    assert bus.viewer.payloads[ids[0]]["stage"] == "crash"
    assert bus.dead_ids() == ids
