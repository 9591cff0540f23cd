"""`loadgen --http`: requests to a real HTTP server, whose responses are counted by what they are."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from infertool.errors import UnreachableError, UsageError
from infertool.load import assertions
from infertool.load.arrivals import Planned
from infertool.load.headers import EnvelopeOptions
from infertool.load.http_options import HttpOptions
from infertool.load.options import LoadOptions
from infertool.load.plot import page
from infertool.load.plot.charts import NamedRun
from infertool.load.record import Run, RunWriter, read
from infertool.load.report import SCHEMA, document, facts
from infertool.load.run import Listeners, LoadRun
from infertool.load.tally import Measure
from infertool.message import BodyKind
from infertool.secret import Secret
from infertool.settings import Settings
from tests.load.runs import texts
from tests.support.ports import free_port
from tests.support.present import present
from tests.support.running import infertool
from tests.support.scripted_http import Asked, ScriptedHttp, Told, problem, serving

OK = Told(200, {"prediction": 1})


def asked_for(url: str, planned: Planned, *, headers: tuple[str, ...] = (), **changes: Any) -> LoadOptions:
    http = HttpOptions(url=url, timeout_s=changes.pop("timeout_s", 60.0), obeys=changes.pop("obeys", False))
    options = LoadOptions(planned=planned, envelope=EnvelopeOptions("", headers=headers), http=http)
    return replace(options, **changes)


def load(options: LoadOptions, path: Path | None = None) -> Run:
    run = LoadRun(Settings(), options, Listeners(), {"--obey-retry-after": ""} if present(options.http).obeys else {})
    if path is None:
        return run.run()
    with RunWriter(path, run.info) as writer:
        return run.run(writer)


def assert_all_ended(run: Run) -> None:
    counts = run.counts
    assert counts.planned == counts.sent + counts.dropped + counts.unsent
    ends = ("results", "failures", "shed", "unavailable", "timed_out", "lost")
    assert counts.sent == sum(getattr(counts, name) for name in ends)


def test_every_request_is_answered(tmp_path: Path) -> None:
    with serving(lambda _: OK) as server:
        path = tmp_path / "run.jsonl"
        options = asked_for(server.url, Planned(qps=200, duration_s=1.0, warmup_s=0.5), headers=("Prefer=wait=5",))
        options = replace(options, http=replace(present(options.http), class_name="batch", key=Secret("ik_1")))
        run = load(options, path)
    assert_all_ended(run)
    assert (run.counts.sent, run.counts.results, run.counts.retried, run.statuses) == (200, 200, None, {"200": 200})
    assert run.histograms[Measure.HTTP].count == 200
    assert len(server.asked) == 300
    assert server.connections < 100  # they are kept
    first = server.asked[0]
    assert (first.method, first.path) == ("POST", "/v1/infer")
    assert json.loads(first.body)["features"]
    sent = {
        "infertool-class": "batch",
        "authorization": "Bearer ik_1",
        "prefer": "wait=5",
        "content-type": "application/json",
    }
    assert sent.items() <= first.headers.items()
    assert len({each.headers["x-request-id"] for each in server.asked}) == 300
    report = document(run)
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert report["http"]["count"] == 200
    assert texts(facts(report))["to"] == f"/v1/infer at {server.url}"
    assert document(read(path)) == {**report, "asserts": []}
    text = page.html([NamedRun("run", run, report)])
    assert "Response: latency over time" in text
    assert "refused" in text


def test_responses_are_counted_by_what_they_are() -> None:
    answers = {
        0: OK,
        1: problem(429, "over_budget", retry_after="3"),
        2: problem(429, "full"),
        3: problem(503, "broker_away"),
        4: problem(500, "inference_failed"),
        5: problem(400, "invalid_body"),
        6: Told(202, {"status": "queued"}),
        7: Told(418, b"\xff"),
        8: Told(0),
        9: Told(-1),
    }  # fmt: skip
    with serving(lambda asked: answers[asked.number % 10]) as server:
        run = load(asked_for(f"{server.url}/predict", Planned(qps=200, count=100), timeout_s=6.0))
    assert {each.path for each in server.asked} == {"/predict"}
    assert_all_ended(run)
    counts = run.counts
    assert (counts.sent, counts.results, counts.shed, counts.unavailable) == (100, 20, 20, 10)
    assert (counts.failures, counts.lost, counts.timed_out) == (30, 10, 10)
    assert run.statuses == dict.fromkeys(
        (
            "200", "202", "400 invalid_body", "418", "429 full", "429 over_budget", "500 inference_failed",
            "503 broker_away",
        ),
        10,
    )  # fmt: skip
    assert run.histograms[Measure.HTTP].count == 20
    report = document(run)
    assert (report["shed_share"], report["failed_share"], report["retry_served_share"]) == (0.2, 0.6, None)
    told = texts(facts(report))
    assert told["responses"] == "20 results, 20 shed (429), 10 unavailable (503), 30 failures, 10 timed out, 10 lost"
    assert "10 x 429 over_budget" in told["statuses"]
    assertions.judge(assertions.parse(["shed_share < 0.5 && http.p99_ms > 0", "shed == 0"], [Measure.HTTP]), report)
    assert [each["passed"] for each in report["asserts"]] == [True, False]


def test_who_obeys_comes_back_once_at_the_told_time() -> None:
    """Of three requests, one is served, one is served when it comes back, one is refused again."""
    tries: dict[str, list[float]] = {}

    def answer(asked: Asked) -> Told:
        mine = tries.setdefault(asked.headers["x-request-id"], [])
        mine.append(time.monotonic())
        kind = (int(asked.headers["x-request-id"].split("-")[1])) % 4
        if kind == 0 or (kind == 1 and len(mine) == 2):
            return OK
        return problem(503 if kind == 2 else 429, "full", **({} if kind == 3 else {"retry_after": "1"}))

    with serving(answer) as server:
        run = load(asked_for(server.url, Planned(qps=100, count=40), obeys=True))
    assert_all_ended(run)
    counts = run.counts
    assert (counts.results, counts.shed, counts.unavailable) == (10, 20, 10)
    assert (counts.retried, counts.retry_served) == (20, 10)
    assert document(run)["retry_served_share"] == 0.5
    assert texts(facts(document(run)))["retries"].startswith("10 of 20 served (50.0 %)")
    # Latencies are those of first tries: none of them contains the wait.
    assert run.histograms[Measure.HTTP].count == 10
    again = [each for each in tries.values() if len(each) > 1]
    assert len(again) == 20
    assert all(len(each) == 2 and each[1] - each[0] >= 1.0 for each in again)


def test_a_slow_server_cannot_hide() -> None:
    """One connection, 20 ms a response: the last of 40 requests waits for all of them."""
    with serving(lambda _: Told(200, 1, after_s=0.02)) as server:
        run = load(asked_for(server.url, Planned(qps=200, duration_s=0.2), given_in_flight=1))
    assert (run.counts.results, server.connections) == (40, 1)
    assert present(run.histograms[Measure.HTTP].percentiles().max) >= 550
    assert any("all 1 connections of --in-flight were busy" in note for note in run.notes)


def test_a_closed_model_waits_for_responses() -> None:
    with serving(lambda _: OK) as server:
        run = load(asked_for(server.url, Planned(count=50), closed=4))
    assert (run.counts.sent, run.counts.results) == (50, 50)
    assert server.connections <= 4
    assert "its response has come" in run.info.plan


def test_a_server_that_goes_away_and_comes_back() -> None:
    """What finds no server is unsent, what is under way is lost, and later requests are answered."""
    port = free_port()

    def at_port() -> ScriptedHttp:
        server = ScriptedHttp(lambda _: OK)
        server.port = port
        server.start()
        return server

    first = at_port()
    run = LoadRun(Settings(), asked_for(f"http://127.0.0.1:{port}", Planned(qps=50)), Listeners(), {})
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run.run)
        until(lambda: len(first.asked) >= 20)
        first.close()
        until(lambda: run.tally.totals()["unsent"] > 0)
        second = at_port()
        until(lambda: len(second.asked) >= 20)
        run.stop()
        finished = running.result()
        second.close()
    assert_all_ended(finished)
    assert finished.counts.unsent > 0
    assert present(finished.counts.results) >= 40
    assert any("requests could not be sent" in note and "cannot be reached" in note for note in finished.notes)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nobody_listens() -> None:
    with pytest.raises(UnreachableError, match="cannot be reached"):
        load(asked_for(f"http://127.0.0.1:{free_port()}", Planned(qps=1, count=1)))


@pytest.mark.parametrize(
    "changes",
    [
        {"e2e": True}, {"confirm": True}, {"rpc_timeout_s": 1.0}, {"connections": 2}, {"timeout_s": 0},
        {"envelope": EnvelopeOptions("", priority="a:1=1.0")}, {"envelope": EnvelopeOptions("", kind=BodyKind.BYTES)},
        {"headers": ("Authorization=Bearer x",)}, {"headers": ("X-API-Key=x",)}, {"headers": ("Host=x",)},
        {"headers": ("A B=x",)}, {"headers": ("A=x\r\nB: y",)}, {"headers": ("Content-Length=1",)}, {"url": "ftp://h/"},
        {"url": "http://user:secret@h/"}, {"url": "h:80"},
    ],
)  # fmt: skip
def test_what_contradicts_it_or_cannot_be_sent(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        asked_for(changes.pop("url", "http://127.0.0.1:1"), Planned(qps=1, count=1), **changes).check()
    assert "secret" not in str(caught.value).replace("would show a secret", "")


def test_assertions_need_the_option() -> None:
    for expression in ("shed == 0", "retry_served_share > 0.9", "http.p99_ms < 5"):
        with pytest.raises(UsageError, match="--http"):
            assertions.parse([expression], [Measure.SLIP, Measure.REPLY])
    for expression in ("lost == 0", "results > 1", "timed_out == 0", "failed_share < 0.1"):
        assertions.parse([expression], [Measure.SLIP, Measure.HTTP])
    with pytest.raises(UsageError, match="--e2e"):
        assertions.parse(["duplicates == 0"], [Measure.SLIP, Measure.HTTP])


def test_the_command_with_two_processes_and_a_key_in_a_file(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("ik_secret\n")
    with serving(lambda asked: OK if asked.number % 2 else problem(429, "full", retry_after="1")) as server:
        done = infertool(
            "loadgen", "--qps", "200", "--duration", "2s", "--http", server.url, "--class", "batch",
            "--obey-retry-after", "--key-file", str(key), "--processes", "2", "-o", "json",
            "--assert", "lost == 0 && timed_out == 0",
            "--assert", "shed_share > 0.1 && http.p50_ms > 0", "--save", str(tmp_path / "run.jsonl"),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["sent"] == 400 == report["results"] + report["shed"]
    assert report["retried"] == report["shed"] == report["statuses"]["429 full"]
    assert {each.headers["authorization"] for each in server.asked} == {"Bearer ik_secret"}
    assert "ik_secret" not in done.stdout + done.stderr + (tmp_path / "run.jsonl").read_text()


def test_the_options_of_requests_need_http() -> None:
    done = infertool("loadgen", "--qps", "1", "--count", "1", "--class", "batch")
    assert done.returncode == 2
    assert "--http" in done.stderr
