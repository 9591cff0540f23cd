"""`loadgen --rpc`: latencies of replies from the intended send, and timeouts and failures counted apart."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infertool.brokers.memory.server import Server
from infertool.errors import UsageError
from infertool.load.arrivals import Planned
from infertool.load.headers import EnvelopeOptions
from infertool.load.options import LoadOptions
from infertool.load.record import Run, RunWriter, read
from infertool.load.report import document, facts
from infertool.load.run import Listeners, LoadRun
from infertool.load.tally import Measure
from infertool.message import Message, Outgoing
from infertool.settings import Settings
from tests.load.runs import texts
from tests.load.test_run import assert_adds_up
from tests.support.brokers import new_queue, settings
from tests.support.present import present
from tests.support.responder import Responder, echo, failure, silent
from tests.support.running import CREDENTIALS, infertool

_numbers = itertools.count(1)


@pytest.fixture
def memory() -> Iterator[Server]:
    with Server(f"load-{next(_numbers)}", login=("admin", "admin")) as server:
        yield server


def asked(memory: Server, planned: Planned, **changes: Any) -> LoadOptions:
    envelope = EnvelopeOptions("q", persistent=False, broker_url=memory.url)
    return replace(LoadOptions(planned=planned, envelope=envelope, rpc_timeout_s=60.0), **changes)


def load(url: str, options: LoadOptions, path: Path | None = None) -> Run:
    run = LoadRun(Settings(broker=settings(url)), options, Listeners(), {})
    if path is None:
        return run.run()
    with RunWriter(path, run.info) as writer:
        return run.run(writer)


def test_every_request_is_answered(memory: Server, tmp_path: Path) -> None:
    with Responder(memory.url, "q") as responder:
        path = tmp_path / "run.jsonl"
        run = load(memory.url, asked(memory, Planned(qps=200, duration_s=1.5, warmup_s=0.5)), path)
        requests = responder.wait_for(400)
    counts = run.counts
    assert_adds_up(run)
    assert (counts.sent, counts.results, counts.failures, counts.timed_out, counts.lost, counts.duplicates) == (
        300, 300, 0, 0, 0, 0,
    )  # fmt: skip
    assert run.histograms[Measure.REPLY].count == 300
    assert sum(second.results for second in run.seconds if second.t >= 0) == 300
    first = requests[0]
    assert first.headers["event_id"].startswith("lg")
    assert {"intended_at", "sent_at", "deadline"} <= first.headers.keys()
    assert not first.properties.persistent
    report = document(run)
    assert report["reply"]["count"] == report["results"] == 300
    assert "300 results + 0 failures, 0 timed out, 0 lost, 0 duplicates" in texts(facts(report))["replies"]
    assert document(read(path))["reply"] == report["reply"]


def test_failures_and_timeouts_are_counted_apart_and_have_no_latency(memory: Server) -> None:
    numbers = itertools.count()

    def answer(message: Message) -> list[Any] | Sequence[Outgoing]:
        match next(numbers) % 4:
            case 0:
                return [failure(message)]
            case 1:
                return silent(message)
        return echo(message)

    with Responder(memory.url, "q", answer):
        run = load(memory.url, asked(memory, Planned(qps=100, duration_s=1.0), rpc_timeout_s=6.0))
    counts = run.counts
    assert (counts.sent, counts.results, counts.failures, counts.timed_out, counts.lost) == (100, 50, 25, 25, 0)
    assert run.histograms[Measure.REPLY].count == 50
    assert document(run)["failed_share"] == round(25 / 75, 6)


def test_a_slow_server_cannot_hide(memory: Server) -> None:
    """Replies wait for each other: the last of 40 waits for all of them, also those of a pause."""

    def answer(message: Message) -> Sequence[Outgoing]:
        time.sleep(0.02)
        return echo(message)

    with Responder(memory.url, "q", answer):
        run = load(memory.url, asked(memory, Planned(qps=200, duration_s=0.2)))
    assert run.counts.results == 40
    # 40 requests came within 0.2 s and took 0.8 s: the last had to wait for most of that.
    assert present(run.histograms[Measure.REPLY].percentiles().max) >= 550


def test_a_closed_model_waits_for_replies(memory: Server) -> None:
    with Responder(memory.url, "q") as responder:
        run = load(memory.url, asked(memory, Planned(count=50), closed=4))
        responder.wait_for(50)
    assert (run.counts.sent, run.counts.results) == (50, 50)
    assert "its reply has come" in run.info.plan


def test_a_connection_that_is_lost_loses_what_waited(memory: Server) -> None:
    line = memory.new_address()

    def answer(message: Message) -> list[Any]:
        if message.headers["event_id"].rpartition("-")[0].endswith("-10"):
            line.faults.cut()
        return []

    with Responder(memory.url, "q", answer):
        options = asked(memory, Planned(qps=50, duration_s=1.0), rpc_timeout_s=1.0)
        run = load(line.url, options)
    counts = run.counts
    assert present(counts.lost) > 0
    ends = (counts.results, counts.failures, counts.timed_out, counts.lost)
    assert counts.sent == sum(map(present, ends))


def test_a_refused_request_is_unsent(memory: Server) -> None:
    memory.faults.refuse_queue("q")
    run = load(memory.url, asked(memory, Planned(qps=50, duration_s=0.2)))
    assert (run.counts.sent, run.counts.unsent) == (0, 10)
    assert any("the broker refused 10 events" in note for note in run.notes)


@pytest.mark.parametrize("changes", [{"e2e": True}, {"confirm": True}, {"rpc_timeout_s": 0}])
def test_what_contradicts_it(memory: Server, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        asked(memory, Planned(qps=1, count=1), **changes).check()


def test_the_command_on_a_broker_with_two_processes(server: Any) -> None:
    queue = new_queue()
    with Responder(server.url, queue):
        done = infertool(
            "loadgen", "--qps", "200", "--duration", "2s", "--rpc", "--timeout", "60s", "--processes", "2",
            "--broker", server.url, "--queue", queue, "-o", "json", "--assert", "timed_out == 0 && lost == 0",
            "--assert", "reply.p50_ms > 0 && results == sent", **CREDENTIALS,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["sent"], report["results"], report["reply"]["count"]) == (400, 400, 400)
