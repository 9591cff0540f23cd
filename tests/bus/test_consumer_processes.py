"""Several consumer processes under one supervisor; and workers under a consumer, as seen from outside."""

from __future__ import annotations

import json
import re
import signal
import time

import psutil
import pytest

from infertool.telemetry.stats import Stats
from tests.bus.conftest import Bus
from tests.bus.test_deaths import assert_none_lost, consume_copies
from tests.bus.test_interrupts import HANGS
from tests.bus.test_settlement import assert_each_once
from tests.support.running import CREDENTIALS, Running, infertool

LONG = 180
SLOW = "sim:?min_ms=10&max_ms=20&failure_rate=0"
# Takes all after the first 200 only once the gate is open.
GATED = """
import time
from pathlib import Path

def predict(payload):
    while int(payload["request_id"].removeprefix("r-")) >= 200 and not Path(GATE).exists():
        time.sleep(0.05)
    return {"class": "A"}
"""
TEAM = ("--processes", "2", "--concurrency", "4")


def children(consumer: Running) -> list[psutil.Process]:
    return psutil.Process(consumer.process.pid).children(recursive=True)


def team_of(consumer: Running, size: int) -> list[psutil.Process]:
    """Wait until `size` processes run below the consumer; they start one after the other."""
    deadline = time.monotonic() + LONG
    while len(found := children(consumer)) != size:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


@pytest.mark.activemq
def test_a_team_shares_the_work_and_sums_up_as_one(real_bus: Bus) -> None:
    bus = real_bus
    ids = bus.send(500)
    consumer = bus.consume(*TEAM, "--exit-when-idle", "1s", model=SLOW)
    assert bus.viewer.wait(100, LONG)
    team_of(consumer, 2)
    summary = consumer.finish()
    assert list(summary) == list(Stats().snapshot().summary())
    assert summary["received"] == summary["succeeded"] == 500
    assert summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"] <= summary["latency_ms"]["max"]
    assert summary["processing_ms"]["p50"] >= 10
    assert consumer.log.read_text().count("broker connected: ") == 2
    assert_each_once(bus, ids)


@pytest.mark.activemq
def test_a_member_that_dies_is_replaced_and_its_events_come_back(real_bus: Bus) -> None:
    bus = real_bus
    ids = bus.send(1000)
    gate, model = bus.folder / "gate", bus.folder / "gated.py"
    model.write_text(GATED.replace("GATE", repr(str(gate))))
    consumer = bus.consume(*TEAM, model=f"{model}:predict", INFERTOOL_CONSUME__TIMEOUT_S="600")
    consumer.wait_for("broker connected: ", 2)
    assert bus.viewer.wait(100, LONG)
    victim = children(consumer)[0]
    bus.lost_count = True
    victim.kill()
    gate.touch()
    assert bus.viewer.wait(len(ids), LONG)
    consumer.wait_for(f"consumer process {victim.pid} ended (was killed by SIGKILL (by the kernel")
    team = team_of(consumer, 2)
    consumer.terminate()
    assert consumer.finish()["redelivered"] > 0
    assert not psutil.wait_procs(team, LONG)[1]
    consume_copies(bus)
    assert_none_lost(bus, ids)


EXITS = """
import os

def predict(payload):
    if payload.get("do") == "exit":
        os._exit(0)
    return 1
"""


def test_a_member_that_its_model_ends_with_code_0_is_replaced(embedded_bus: Bus) -> None:
    """Like one that was killed: the event is dead-lettered, and the others have their results."""
    bus = embedded_bus
    bus.lost_count = True
    (bus.folder / "exits.py").write_text(EXITS)
    consumer = bus.consume(*TEAM, model=f"{bus.folder / 'exits.py'}:predict")
    consumer.wait_for("broker connected: ", 2)
    raw = bus.raw()
    raw.send(bus.queue, [({"event_id": "exits"}, b'{"do": "exit"}')])
    consumer.wait_for("ended (ended with exit code 0); another starts in ")
    ids = [f"{number}" for number in range(20)]
    raw.send(bus.queue, (({"event_id": each}, b"{}") for each in ids))
    raw.close()
    assert bus.viewer.wait(len(ids) + 1, LONG)
    team_of(consumer, 2)
    consumer.terminate()
    consumer.finish()
    assert list(bus.viewer.alerts) == ["exits"]
    assert bus.dead_ids() == ["exits"]
    assert bus.left() == 0


def test_a_team_whose_model_ends_each_member_with_code_0_fails(embedded_bus: Bus) -> None:
    model = embedded_bus.folder / "exits_at_once.py"
    model.write_text("import os\nos._exit(0)\n")
    consumer = embedded_bus.consume(*TEAM, model=f"{model}:predict")
    assert consumer.process.wait(LONG) == 1
    assert re.search("infertool: consumer process [12] ended with exit code 0", consumer.log.read_text())


def test_a_second_ctrl_c_leaves_no_process_behind(embedded_bus: Bus) -> None:
    bus = embedded_bus
    ids = bus.send(3)
    (bus.folder / "hangs.py").write_text(HANGS)
    model = f"{bus.folder / 'hangs.py'}:predict"
    consumer = bus.consume(*TEAM, "--executor", "processes", "--workers", "1", model=model)
    consumer.wait_for("in work")
    below = team_of(consumer, 4)
    consumer.process.send_signal(signal.SIGINT)
    consumer.wait_for("Ctrl-C again leaves at once")
    assert consumer.process.poll() is None
    consumer.process.send_signal(signal.SIGINT)
    assert consumer.process.wait(LONG) == 130
    assert not psutil.wait_procs(below, LONG)[1]
    assert "Traceback" not in consumer.log.read_text()
    assert bus.left() == len(ids)


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (("--model", "fixtures/models/import_error.py:predict"), 1, "no_such_package_anywhere"),
        (("--broker", "stomp://127.0.0.1:1", "--publish", "none"), 3, "nothing listens at stomp://127.0.0.1:1"),
        (("--max-messages", "5"), 2, "--max-messages cannot be shared"),
        (("--publish", "stdout"), 2, "several processes cannot share stdout"),
        (("--batch-size", "8", "--target-latency", "50ms"), 2, "consume.batch_size is 8"),
        (("--executor", "processes", "--concurrency", "auto"), 2, "--workers"),
        (("--workers", "4"), 2, "consume.workers is for worker processes"),
        (("--devices", "0,1"), 2, "consume.devices is for worker processes"),
        (("--target-latency", "50ms", "--concurrency", "auto"), 2, "consume.concurrency auto"),
    ],
)
def test_a_team_that_cannot_start_says_why_once(options: tuple[str, ...], code: int, reason: str) -> None:
    done = infertool("consume", "--processes", "2", *options, **CREDENTIALS)
    assert (done.returncode, done.stdout) == (code, "")
    [line] = [line for line in done.stderr.splitlines() if line.startswith("infertool: ")]
    assert reason in line
    assert "Traceback" not in done.stderr


def test_an_event_that_kills_its_worker_is_dead_lettered_and_the_consumer_goes_on(embedded_bus: Bus) -> None:
    bus = embedded_bus
    raw = bus.raw()
    deeds = ["", "segfault", "", "exit", "", "hang-in-c", ""]
    raw.send(bus.queue, (({"event_id": f"{n}"}, json.dumps({"do": deed}).encode()) for n, deed in enumerate(deeds)))
    raw.close()
    consumer = bus.consume(
        "--executor", "processes", "--workers", "2", "--batch-size", "1", "--max-messages", str(len(deeds)),
        model="fixtures/models/misbehaves.py:Misbehaves",
        INFERTOOL_CONSUME__TIMEOUT_S="2", INFERTOOL_CONSUME__RETRY_BASE_S="0.01",
    )  # fmt: skip
    summary = consumer.finish()
    assert bus.viewer.wait(len(deeds), LONG)
    alerts = {event_id: bus.viewer.payloads[event_id] for event_id in bus.viewer.alerts}
    told = {event_id: (alert["error_type"], alert["attempts"]) for event_id, alert in alerts.items()}
    assert told == {"1": ("WorkerDied", 2), "3": ("WorkerDied", 2), "5": ("Timeout", 3)}
    assert "SIGSEGV" in bus.viewer.payloads["1"]["error"]
    assert sorted(bus.dead_ids()) == sorted(told)
    assert summary["succeeded"] == 4
    assert bus.left() == 0
