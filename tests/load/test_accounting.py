"""Every event of a plan is counted once, in the second it was due, whatever happens to the generator meanwhile."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.brokers.port import OnSent
from infertool.errors import InfertoolError
from infertool.load import generator, record
from infertool.load.arrivals import Planned, Process, schedule
from infertool.load.generator import OpenGenerator
from infertool.load.options import LoadOptions
from infertool.load.record import Run, RunWriter
from infertool.load.run import Listeners, LoadRun
from infertool.load.seconds import PlannedEvents, Seconds
from infertool.load.sender import Sender
from infertool.load.tally import Clock, Meter, Tally, start_clock
from infertool.load.team import Team
from infertool.load.work import Work
from infertool.message import Outgoing
from infertool.settings import Settings
from tests.load.test_run import assert_adds_up, drained, load, options, until
from tests.support.brokers import new_queue, settings
from tests.support.embedded import EmbeddedBroker
from tests.support.running import Running

LONG = 120


def load_run(server: EmbeddedBroker, asked: LoadOptions) -> LoadRun:
    return LoadRun(Settings(broker=settings(server.url)), asked, Listeners(), {})


class StandIn:
    """A sender without connections; the test sets its clock."""

    def __init__(self) -> None:
        self.at = 0.0
        self.sent: list[int] = []

    def now(self) -> float:
        return self.at

    def send_some(self, backlog: deque[Any]) -> None:
        self.sent.append(backlog.popleft()[0])


def generated(times: list[float], end_s: float, *, warmup_s: float = 0.0) -> tuple[OpenGenerator, StandIn, Tally]:
    sender, tally = StandIn(), Tally()
    generator = OpenGenerator(cast("Sender", sender), tally, enumerate(times), warmup_s=warmup_s, end_s=end_s)
    return generator, sender, tally


def test_a_process_stopped_past_the_end_of_the_plan_still_sends_all() -> None:
    generator, sender, tally = generated([0.1 * n for n in range(100)], 10.0)
    sender.at = 5000.0
    generator.run()
    assert sender.sent == list(range(100))
    assert tally.totals() == {"planned": 100}
    assert not generator.drops


def test_events_not_sent_in_time_are_dropped_with_the_reason() -> None:
    made, sender, tally = generated([0.01 * n for n in range(1000)], 10.0, warmup_s=1.0)
    sender.at = 11.0
    for _ in range(50):
        assert made.step()
    sender.at += generator.OVERTIME_S
    made.run()
    assert tally.totals() == {"planned": 900, "dropped": 900}
    assert tally.totals(warm=True) == {"planned": 100, "dropped": 100 - len(sender.sent)}
    assert made.drops == {f"still waited {generator.OVERTIME_S:g} s after the plan's end": 900}


def test_a_stop_counts_the_due_events_and_no_later_ones() -> None:
    made, sender, tally = generated([0.5 * n for n in range(100)], 50.0)
    sender.at = 10.0
    assert made.step()
    sender.at = 20.0  # nothing was collected since
    made.stop()
    made.run()
    assert tally.totals() == {"planned": 41, "dropped": 40}
    assert made.drops == {"still waited when the run was stopped": 40}


def test_events_beyond_the_backlog_are_dropped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "MOST_WAITING", 10)
    made, sender, tally = generated([0.0] * 25, 1.0)
    made.run()
    assert (len(sender.sent), tally.totals()["dropped"]) == (10, 15)
    assert list(made.drops.values()) == [15]


def test_time_in_which_the_process_is_stopped_does_not_free_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    at = [100.0]
    monkeypatch.setattr("infertool.load.generator.time.monotonic", lambda: at[0])
    slots = generator.Slots(2, 10.0)
    assert slots.take(0)
    assert slots.take(0)
    at[0] += 500
    assert not slots.take(0)
    found = []
    for _ in range(12):
        at[0] += 1
        found.append(slots.take(0))
    assert found == [False] * 9 + [True, True, False]  # both are lost, ten seconds after they were taken


PLANS = st.one_of(
    st.integers(1, 300).map(lambda rate: {"qps": rate, "duration_s": 7}),
    st.tuples(st.integers(0, 200), st.integers(1, 200)).map(lambda p: {"ramp": f"{p[0]}:{p[1]}:5s"}),
    st.tuples(st.integers(1, 50), st.integers(51, 200)).map(
        lambda p: {"qps": p[0], "burst": f"{p[1]}:1s/3s", "duration_s": 8}
    ),
)


@given(PLANS, st.sampled_from(Process), st.sampled_from([0.0, 0.5, 2.0]))
def test_each_second_plans_the_events_due_in_it(plan: dict[str, Any], process: Process, warmup_s: float) -> None:
    made = schedule(Planned(**plan, process=process, warmup_s=warmup_s, seed=3))
    due = Counter(int((time_s - warmup_s) // 1) for time_s in made.times())
    planned = PlannedEvents(made.times(), warmup_s)
    found = {second: planned.up_to(second) for second in range(-2, 20)}
    assert {second: count for second, count in found.items() if count} == due


def test_late_reports_count_in_their_second_or_the_next_one_cut() -> None:
    clock = Clock()
    clock.start(replace(start_clock(0), mono=time.monotonic() - 1000), 0.0)
    tally, rows = Tally(clock), []
    plan = PlannedEvents(iter([0.5, 1.5, 1.6, 2.5]), 0.0)
    seconds = Seconds(clock, 0, plan, tally, Meter(clock), lambda second, _: rows.append(second))
    tally.add(second=0, planned=1, sent=1)
    tally.add(second=2, planned=1, sent=1)
    tally.add(second=1, planned=2, sent=2)
    seconds.start()
    assert until(lambda: len(rows) > 500)
    seconds.stop()
    assert [(row.planned, row.sent) for row in rows[:4]] == [(1, 1), (2, 2), (1, 1), (0, 0)]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_planned_equals_the_plan_if_the_generator_was_stopped(
    embedded_broker: EmbeddedBroker, processes: str, tmp_path: Path
) -> None:
    """SIGSTOP stops the whole process or one load process for seconds; the events are then sent late."""
    running = Running(
        tmp_path, "loadgen", "--broker", embedded_broker.url, "--queue", new_queue(), "--qps", "50", "--duration",
        "9s", "--warmup", "1s", "--processes", processes, "--save", str(tmp_path / "run.jsonl"), "-o", "json",
    )  # fmt: skip
    saved = tmp_path / "run.jsonl"
    assert until(lambda: saved.exists() and saved.read_bytes().count(b'"line":"second"') >= 2, LONG)
    stopped = running.process.pid if processes == "1" else max(child.pid for child in senders(running))
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(3)
    os.kill(stopped, signal.SIGCONT)
    report = running.finish()
    assert (report["planned"], report["sent"] + report["dropped"] + report["unsent"]) == (450, 450)
    assert report["sent"] == 450
    assert report["late"] > 40
    planned = {row["t"]: row["planned"] for row in report["seconds"]}
    assert {t: count for t, count in planned.items() if count} == dict.fromkeys(range(-1, 9), 50)
    assert [row["planned"] for row in report["seconds"]] == [row.planned for row in record.read(saved).seconds]
    assert report["planned_rate"] == 50


def senders(running: Running) -> list[psutil.Process]:
    """Return the load processes."""
    children = psutil.Process(running.process.pid).children()
    return [child for child in children if "infertool.load.process" in " ".join(child.cmdline())]


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_if_a_load_process_dies_the_others_are_reported(
    embedded_broker: EmbeddedBroker, death: int, tmp_path: Path
) -> None:
    saved = tmp_path / "run.jsonl"
    running = Running(
        tmp_path, "loadgen", "--broker", embedded_broker.url, "--queue", new_queue(), "--qps", "60", "--duration",
        "6s", "--processes", "3", "--save", str(saved), "-o", "json",
    )  # fmt: skip
    assert until(lambda: saved.exists() and b'"line":"second"' in saved.read_bytes(), LONG)
    os.kill(senders(running)[0].pid, death)
    output, _ = running.process.communicate(timeout=LONG)
    report, log = json.loads(output), running.log.read_text()
    assert running.process.returncode == 1
    assert report["complete"]
    assert report["planned"] == 360 == report["sent"] + report["dropped"] + report["unsent"]
    assert report["sent"] >= 240
    assert report["unsent"] > 0
    assert sum(row["unsent"] for row in report["seconds"]) == report["unsent"]
    assert any("load process" in note and "of its share were not reported as sent" in note for note in report["notes"])
    assert "load process" in log
    assert "the others go on" in log
    assert log.splitlines()[-1].startswith("infertool: load process")
    assert record.read(saved).complete


def test_all_load_processes_die(embedded_broker: EmbeddedBroker) -> None:
    run = load_run(embedded_broker, options(new_queue(), Planned(qps=100), processes=2))
    finished: list[Run] = []
    thread = threading.Thread(target=lambda: finished.append(run.run()))
    thread.start()
    assert until(lambda: run.tally.totals()["sent"] > 20, LONG)
    assert isinstance(run._work, Team)
    for member in run._work._members:
        member.process.kill()
    thread.join(LONG)
    assert_adds_up(finished[0])
    assert str(run.fault).count("died (signal 9)") == 2


def test_a_save_that_fails_late_ends_the_sending_and_not_the_report(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    run = LoadRun(
        Settings(broker=settings(embedded_broker.url)), options(new_queue(), Planned(qps=100)), Listeners(), {}
    )

    class Full(RunWriter):
        def second(self, second: object, histograms: object) -> None:
            raise InfertoolError("run.jsonl cannot be written: No space left on device")

    with Full(tmp_path / "run.jsonl", run.info) as writer:
        finished = run.run(writer)
    assert_adds_up(finished)
    assert finished.counts.planned > 0
    assert "No space left" in str(run.fault)


def slow_receipts(send: Callable[..., None]) -> Callable[[Outgoing, OnSent], None]:
    def delayed(outgoing: Outgoing, on_sent: OnSent) -> None:
        def late(error: Exception | None) -> None:
            time.sleep(0.02)
            on_sent(error)

        send(outgoing, late)

    return delayed


def test_a_run_waits_for_the_last_receipt_of_a_slow_broker(
    embedded_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its receipts come one by one; together they take longer than any single wait."""
    queue = new_queue()
    asked = options(queue, Planned(qps=5000, count=100), confirm=True)
    run = load_run(embedded_broker, asked)
    work = run._work
    assert isinstance(work, Work)
    connect = work.connect

    def slowly() -> None:
        connect()
        for broker in work._brokers:
            monkeypatch.setattr(broker, "send", slow_receipts(broker.send))

    monkeypatch.setattr(work, "connect", slowly)
    finished = run.run()
    assert (finished.counts.sent, finished.counts.confirmed, len(drained(embedded_broker, queue, 100))) == (100,) * 3


def test_a_run_stopped_at_once(embedded_broker: EmbeddedBroker) -> None:
    run = LoadRun(
        Settings(broker=settings(embedded_broker.url)), options(new_queue(), Planned(qps=100)), Listeners(), {}
    )
    run.stop()
    finished = run.run()
    assert_adds_up(finished)
    assert finished.counts.sent == 0


def test_two_processes_stopped_in_the_middle(embedded_broker: EmbeddedBroker) -> None:
    asked = options(new_queue(), Planned(qps=500, warmup_s=0.5), processes=2)
    run = load_run(embedded_broker, asked)
    finished: list[Run] = []
    thread = threading.Thread(target=lambda: finished.append(run.run()))
    thread.start()
    assert until(lambda: run.tally.totals()["sent"] > 700, LONG)
    run.stop()
    thread.join(LONG)
    assert_adds_up(finished[0])
    rows = [row for row in finished[0].seconds if row.t >= 0]
    assert rows[0].planned == 500


def test_rates_divide_by_the_time_they_name(embedded_broker: EmbeddedBroker) -> None:
    finished = load(embedded_broker, options(new_queue(), Planned(stages=("100:1s", "300:1s"))))
    assert finished.planned_s == 2.0
    assert finished.counts.planned == 400
