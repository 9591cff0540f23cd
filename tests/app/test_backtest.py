"""Rules on recorded runs: files of `tail --record` and `watch --record`, and of `loadgen --save`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infertool.alerts.rule import parse_rules
from infertool.alerts.shipped import SHIPPED
from infertool.app import backtest
from infertool.channels.event import ChannelEvent
from infertool.channels.recording import Recorder
from infertool.errors import NothingMatchedError
from infertool.load.record import Counts, Run, RunInfo, RunWriter, Second
from infertool.load.tally import Measure
from infertool.telemetry.latencies import Percentiles
from tests.support.running import infertool

START = 1_700_000_000.0
RULES = parse_rules([], SHIPPED, "")


def event(after_s: float, *, failed: bool = False, took_s: float = 0.1) -> ChannelEvent:
    began = datetime.fromtimestamp(START + after_s - took_s, UTC).isoformat()
    payload: dict[str, Any] = {
        "event_id": f"e{after_s}", "status": "FAILED" if failed else "SUCCESS", "received_at": began,
        "processing_ms": 50.0, "original_payload": {"sent_at": began},
    }  # fmt: skip
    name = "inference_failed" if failed else "new_result"
    return ChannelEvent("public:results", name, payload, START + after_s)


def changes(outcome: backtest.Outcome, rule: str) -> list[tuple[float, str]]:
    return [(change.after_s, str(change.state)) for change in outcome.changes if change.rule == rule]


def test_an_event_of_a_wrong_clock_costs_no_time(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    recorder = Recorder(str(path))
    recorder.write([ChannelEvent("public:results", "new_result", {"status": "SUCCESS"}, at) for at in (0.5, 9e10)])
    recorder.close()
    outcome = backtest.run(path, RULES)
    assert (outcome.seconds, outcome.changes) == (90_000_000_001, [])


def test_a_recording_of_events(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    recorder = Recorder(str(path))
    # Ten minutes of good events, ten of failures and slow events, ten of good ones; one event a second.
    recorder.write(
        event(t, failed=600 <= t < 1200 and t % 2 == 0, took_s=8.0 if 600 <= t < 1200 else 0.1) for t in range(1800)
    )
    recorder.write([ChannelEvent("public:alerts", "alert", {"rule": "X"}, START + 5)])
    recorder.close()
    outcome = backtest.run(path, RULES)
    assert outcome.seconds == 1800
    slow = changes(outcome, "ResponseTime")
    assert [state for _, state in slow] == ["pending", "firing", "resolved", "inactive"]
    assert 600 <= slow[0][0] <= 601
    assert slow[1][0] == slow[0][0] + 300
    # The last slow event leaves the last minute.
    assert 1258 <= slow[2][0] <= 1262
    dead = changes(outcome, "DeadLetters")
    assert [state for _, state in dead][:3] == ["pending", "firing", "resolved"]
    burn = changes(outcome, "ErrorBurn")
    assert burn[0][1] == "firing"
    assert outcome.untried["Backlog"] == ["queue.depth"]
    assert {"ConnectionDown", "Memory", "NoProgress", "ClockSkew"} <= set(outcome.untried)
    assert not {change.rule for change in outcome.changes} & set(outcome.untried)

    done = infertool("alerts", "backtest", str(path))
    assert done.returncode == 0
    assert f"{slow[1][0]:.0f}s" in done.stdout
    assert "3 of 3 rules would have fired in 1800 s" in done.stderr
    assert "Backlog was not tried: the record does not tell queue.depth" in done.stderr
    shown = json.loads(infertool("alerts", "backtest", str(path), "-o", "json").stdout)
    assert len(shown["changes"]) == len(outcome.changes)


def load_run(path: Path, *measures: Measure) -> None:
    info = RunInfo(
        version="1", started_at=START, model="open", plan="p", broker="b", queue="q", seed=1, measures=measures
    )
    times = {Measure.E2E: Percentiles(p50=20.0, p90=30.0, p99=40.0, max=50.0, count=100)}
    with RunWriter(path, info) as writer:
        for t in range(-10, 900):
            # Twice as much is sent as comes back for five minutes; then it drains.
            sent = 200 if 0 <= t < 300 else 0 if t < 0 else 50
            back = 100 if t >= 0 else 0
            writer.second(
                Second(t, planned=sent, sent=sent, results=back, latency_ms=times if measures and back else {}), {}
            )
        writer.end(Run(info, (), Counts(queue_before=100), {}, 900.0))


def test_a_load_run_tells_the_depth(tmp_path: Path) -> None:
    load_run(tmp_path / "run.jsonl", Measure.E2E)
    outcome = backtest.run(tmp_path / "run.jsonl", RULES)
    backlog = changes(outcome, "Backlog")
    assert [state for _, state in backlog][:3] == ["pending", "firing", "resolved"]
    # 100 at the start, and 100 more a second after ten of warm-up.
    assert backlog[0][0] == 10 + 9
    assert backlog[1][0] == backlog[0][0] + 120
    assert backlog[1][0] < 310 < backlog[2][0]
    assert changes(outcome, "DrainTime") == []
    assert "DrainTime" not in outcome.untried
    assert "ResponseTime" in outcome.untried


def test_a_load_run_without_results_tells_only_what_was_sent(tmp_path: Path) -> None:
    load_run(tmp_path / "run.jsonl")
    rules = parse_rules([{"name": "Busy", "when": "rate.received > 60.0", "for": "10s"}], SHIPPED, "")
    outcome = backtest.run(tmp_path / "run.jsonl", rules)
    assert {change.rule for change in outcome.changes} == {"Busy"}
    assert {"Backlog", "DeadLetters"} <= set(outcome.untried)


def test_long_pauses_and_odd_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    recorder = Recorder(str(path))
    recorder.write(
        [
            event(0),
            ChannelEvent("t", "new_result", [1], START),
            ChannelEvent("t", "new_results", {"results": 5}, START),
            ChannelEvent("t", "new_results", {"results": [{"status": "SUCCESS"}, 3]}, START + 1),
            event(10 * 86_400.0),
        ]
    )
    recorder.close()
    with path.open("a") as file:
        file.write("no json\n")
    assert backtest.run(path, RULES).seconds == 864_001


def test_a_file_that_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("hello\n")
    with pytest.raises(NothingMatchedError, match="holds no results and no failures"):
        backtest.run(path, RULES)
    assert infertool("alerts", "backtest", str(tmp_path / "none")).returncode == 1
