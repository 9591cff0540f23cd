"""A model so quick that the thread which reads from the broker asks it: the same guarantees, and nothing held up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.bus.conftest import Bus
from tests.bus.test_deaths import assert_none_lost, consume_copies, kill_in_the_middle
from tests.bus.test_settlement import assert_each_once
from tests.support.hub import HubProcess

pytestmark = pytest.mark.long

LONG = 120
MODEL = "fixtures/models/quick.py:Quick"
# The model holds this one, after so many quick ones before it.
EVENTS, HELD = 3000, 2000
PUSHES = {"one by one": ("--publish-batch", "1"), "in batches": ("--publish-batch", "64")}

in_every_push_mode = pytest.mark.parametrize("pushes", PUSHES)


def hold(release: Path, count: int = 1) -> dict[str, Any]:
    """Return settings with which the model holds `count` events until `release` is there, however long that takes."""
    numbers = ",".join(map(str, range(HELD, HELD + count)))
    return {"QUICK_HOLDS": numbers, "QUICK_RELEASE": str(release), "INFERTOOL_CONSUME__TIMEOUT_S": "1000"}


def threads(bus: Bus) -> set[str]:
    """Return the names of the threads that asked the model, without their numbers."""
    predictions = [payload["prediction"] for payload in bus.viewer.payloads.values() if "prediction" in payload]
    return {prediction["thread"].split("-")[-1] for prediction in predictions}


@in_every_push_mode
def test_every_event_ends_once(bus: Bus, pushes: str) -> None:
    ids = bus.send(EVENTS, poison=30)
    consumer = bus.consume("--max-messages", f"{EVENTS}", "--max-attempts", "1", *PUSHES[pushes], model=MODEL)
    summary = consumer.finish()
    assert bus.viewer.wait(EVENTS, LONG)
    results, dead = assert_each_once(bus, ids)
    assert (summary["received"], summary["succeeded"], summary["dead_lettered"]) == (EVENTS, results, dead)
    assert "reader" in threads(bus)


@in_every_push_mode
def test_killed_at_random_instants(bus: Bus, pushes: str) -> None:
    count = 20_000
    ids = bus.send(count, poison=100)
    kill_in_the_middle(bus, count, lambda: bus.consume(*PUSHES[pushes], model=MODEL), kills=4, apart=3000)
    bus.consume("--exit-when-idle", "1s", *PUSHES[pushes], model=MODEL).finish()
    assert_none_lost(bus, ids)
    assert "reader" in threads(bus)


def test_the_broker_is_killed(real_bus: Bus) -> None:
    bus, release = real_bus, real_bus.folder / "release"
    ids = bus.send(20_000)
    # More than the window has room for: it does not come to its end before the kill, however late that is.
    consumer = bus.consume(model=MODEL, INFERTOOL_BROKER__RECONNECT_MAX_S="0.5", **hold(release, 300))
    assert bus.viewer.wait(HELD // 2, LONG)
    bus.broker.kill()
    release.touch()
    bus.broker.start()
    assert bus.viewer.wait(len(ids), LONG)
    consumer.terminate()
    assert consumer.finish()["reconnects"] > 0
    assert_none_lost(bus, ids)


def test_the_hub_restarts(real_bus: Bus) -> None:
    """The broker is the judge: what was broadcast before the viewer is back is missed by it."""
    bus = real_bus
    with HubProcess() as bus.hub:
        bus.send(10_000)
        consumer = bus.consume("--exit-when-idle", "1s", model=MODEL)
        consumer.wait_for("broker connected")
        bus.hub.kill()
        bus.hub.start()
        summary = consumer.finish()
    assert summary["received"] == summary["succeeded"] + summary["dead_lettered"] == 10_000
    assert summary["reconnects"] > 0
    assert bus.left() == 0


def test_an_event_that_takes_long_holds_no_other_up(bus: Bus) -> None:
    release = bus.folder / "release"
    ids = bus.send(EVENTS)
    consumer = bus.consume(
        "--max-messages", f"{EVENTS}", "--concurrency", "2", "--max-attempts", "1", model=MODEL, **hold(release)
    )
    assert bus.viewer.wait(EVENTS - 1, LONG)
    assert bus.viewer.seen == set(ids) - {ids[HELD]}
    release.touch()
    assert consumer.finish()["received"] == EVENTS
    assert bus.viewer.wait(EVENTS, LONG)
    assert_each_once(bus, ids)
    assert "reader" in threads(bus)


def test_an_event_that_hangs_times_out_and_the_others_go_on(bus: Bus) -> None:
    ids = bus.send(EVENTS)
    summary = bus.consume(
        "--max-messages", f"{EVENTS}", "--concurrency", "1", "--max-attempts", "1", model=MODEL,
        **{**hold(bus.folder / "never"), "INFERTOOL_CONSUME__TIMEOUT_S": "3"},
    ).finish()  # fmt: skip
    assert summary["received"] == EVENTS
    assert bus.viewer.wait(EVENTS, LONG)
    assert_each_once(bus, ids)
    assert bus.viewer.payloads[ids[HELD]]["error_type"] == "Timeout"


def test_a_stop_does_not_wait_past_the_deadline(bus: Bus) -> None:
    ids = bus.send(EVENTS)
    consumer = bus.consume(
        "--concurrency", "2", "--max-attempts", "1", model=MODEL,
        INFERTOOL_CONSUME__STOP_DEADLINE_S="0.5", **hold(bus.folder / "never"),
    )  # fmt: skip
    assert bus.viewer.wait(EVENTS - 1, LONG)
    consumer.terminate()
    summary = consumer.finish()
    assert summary["received"] == EVENTS
    left = summary["handed_back"]  # on a slow machine also failures that were told and not yet dead-lettered
    assert left >= 1
    rest = bus.consume("--max-messages", f"{left}", "--max-attempts", "1", model=MODEL).finish()
    assert rest["succeeded"] + rest["dead_lettered"] == left
    assert_none_lost(bus, ids)


def test_the_broker_goes_while_an_event_takes_long(real_bus: Bus) -> None:
    bus, release = real_bus, real_bus.folder / "release"
    ids = bus.send(EVENTS)
    consumer = bus.consume(
        "--concurrency", "2", "--max-attempts", "1", model=MODEL, INFERTOOL_BROKER__RECONNECT_MAX_S="0.5",
        **hold(release),
    )  # fmt: skip
    assert bus.viewer.wait(EVENTS - 1, LONG)
    bus.broker.kill()
    bus.broker.start()
    ids += bus.send(100)
    assert bus.viewer.wait(len(ids) - 1, LONG)
    release.touch()
    assert bus.viewer.wait(len(ids), LONG)
    consumer.terminate()
    assert consumer.finish()["recognised"] >= 1, "the held event came again while it was in work"
    consume_copies(bus)
    assert_none_lost(bus, ids)


def test_as_many_as_asked_for_and_no_more(bus: Bus) -> None:
    ids = bus.send(EVENTS)
    summary = bus.consume("--max-messages", "2345", "--max-attempts", "1", model=MODEL).finish()
    assert (summary["received"], summary["handed_back"]) == (2345, 0)
    rest = bus.consume("--exit-when-idle", "1s", "--max-attempts", "1", model=MODEL).finish()
    assert rest["received"] == EVENTS - 2345
    assert_each_once(bus, ids)
