"""`infertool loadgen --e2e` as its users run it: its counts add up, and a pause of the consumer shows."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest
import websocket

from infertool import brokers
from infertool.channels.topics import TopicFeed
from infertool.settings import PhoenixSettings
from tests.bus.conftest import Bus
from tests.support.brokers import settings
from tests.support.running import CREDENTIALS, Running, infertool

pytestmark = pytest.mark.long

STEADY = "sim:?min_ms=0&max_ms=2&failure_rate=0"


def loadgen(bus: Bus, *options: str) -> Running:
    return Running(
        bus.folder / "loadgen",
        "loadgen", "--broker", bus.broker.url, "--queue", bus.queue, "--dlq", bus.dlq, "--phoenix", bus.hub.url,
        "--e2e", "--settle", "60s", "-o", "json", *options, **CREDENTIALS,
    )  # fmt: skip


def await_consumer(bus: Bus) -> None:
    broker = brokers.open(settings(bus.broker.url))
    broker.connect()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        depth = broker.measure(bus.queue, 1)
        if depth and depth.consumers:
            break
    broker.close(5)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_counts_add_up_with_failures_and_poison(bus: Bus, processes: str) -> None:
    consumer = bus.consume("--max-attempts", "1", model="sim:?min_ms=0&max_ms=4&failure_rate=0.1&seed=3")
    report = loadgen(
        bus, "--qps", "300", "--duration", "2s", "--warmup", "1s", "--poison-rate", "0.05", "--processes", processes,
        "--assert", "lost == 0", "--assert", "sent == results + failures", "--assert", "dead_lettered == failures",
    ).finish()  # fmt: skip
    consumer.terminate()
    summary = consumer.finish()
    assert report["planned"] == report["sent"] == 600
    assert report["results"] + report["failures"] == 600
    assert (report["lost"], report["duplicates"]) == (0, 0)
    assert report["dead_lettered"] == report["failures"] > report["poison"] > 10
    assert report["e2e"]["count"] == 600
    assert [verdict["passed"] for verdict in report["asserts"]] == [True] * 3
    # The warm-up was sent, too.
    assert summary["received"] == 900
    # What a bystander saw is what was counted.
    assert bus.viewer.wait(900, 60)
    counted = [event_id for event_id in bus.viewer.seen if int(event_id.split("-")[2]) >= 1_000_000]
    assert len(counted) == 600
    assert len([event_id for event_id in counted if event_id in bus.viewer.alerts]) == report["failures"]
    assert set(bus.dead_ids()) == set(bus.viewer.alerts)


def test_a_pause_of_the_consumer_shows_in_the_end_to_end_latency(bus: Bus) -> None:
    consumer = bus.consume(model=STEADY)
    await_consumer(bus)
    run = loadgen(bus, "--qps", "100", "--duration", "6s")
    assert bus.viewer.wait(50, 60)
    os.kill(consumer.process.pid, signal.SIGSTOP)
    time.sleep(2)
    os.kill(consumer.process.pid, signal.SIGCONT)
    report = run.finish()
    consumer.terminate()
    consumer.finish()
    assert report["sent"] == report["results"] == 600
    # A closed loop would have one event wait; here those that were due in the pause do, for what was left of it.
    assert report["e2e"]["p90_ms"] > 500
    assert report["e2e"]["p99_ms"] > 1500


def test_what_nobody_takes_is_queued(embedded_bus: Bus) -> None:
    report = loadgen(embedded_bus, "--qps", "100", "--count", "50", "--settle", "1s").finish()
    assert (report["sent"], report["results"], report["failures"]) == (50, 0, 0)
    assert (report["queued"], report["lost"], report["queue_before"], report["queue_after"]) == (50, 0, 0, 50)
    assert report["dead_lettered"] == 0
    assert embedded_bus.left() == 50


def test_what_comes_twice_is_a_duplicate(embedded_bus: Bus) -> None:
    """Two consumers of copies would do it; here a bystander pushes each result again, as a batch."""
    service = websocket.create_connection(f"{embedded_bus.hub.url}?vsn=2.0.0", suppress_origin=True)

    def push(event: str, payload: object) -> None:
        service.send(json.dumps(["1", "1", "service:inference", event, payload]))

    seen: list[str] = []

    def again(arrivals: Any) -> None:
        new = [each.payload for each in arrivals if each.payload["event_id"] not in seen]
        seen.extend(each.payload["event_id"] for each in arrivals)
        if new:
            push("new_results", {"results": new})

    push("phx_join", {})
    settings = PhoenixSettings(url=embedded_bus.hub.url)
    feed = TopicFeed(settings, [settings.result_topic], on_events=again, on_connection=lambda _: None)
    feed.connect()
    run = loadgen(embedded_bus, "--qps", "50", "--count", "100", "--settle", "600s")
    embedded_bus.consume("--max-messages", "99", model=STEADY).finish()
    # The run ends with the last result, so that comes when the others have come twice.
    while len(seen) < 2 * 99:
        time.sleep(0.05)
    embedded_bus.consume("--max-messages", "1", model=STEADY).finish()
    report = run.finish()
    feed.close(2)
    service.close()
    assert (report["results"], report["lost"]) == (100, 0)
    assert report["duplicates"] in {99, 100}


def test_ctrl_c_ends_the_sending_and_waits_for_what_was_sent(embedded_bus: Bus) -> None:
    consumer = embedded_bus.consume(model=STEADY)
    run = loadgen(embedded_bus, "--qps", "100")
    assert embedded_bus.viewer.wait(50, 60)
    run.process.send_signal(signal.SIGINT)
    report = run.finish()
    consumer.terminate()
    consumer.finish()
    assert report["planned"] == report["sent"] + report["dropped"] >= 50
    assert report["sent"] == report["results"]
    assert report["complete"]


def test_an_assertion_that_does_not_hold_is_named(embedded_bus: Bus) -> None:
    run = infertool(
        "loadgen", "--broker", embedded_bus.broker.url, "--queue", embedded_bus.queue, "--qps", "100", "--count", "20",
        "--assert", "sent == 20", "--assert", "sent > 20", **CREDENTIALS,
    )  # fmt: skip
    assert run.returncode == 1
    assert "--assert does not hold: 'sent > 20' (sent = 20)" in run.stderr
    assert "held  sent == 20" in run.stdout


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--qps", "0"], 2, "--qps 0 is no rate"),
        (["--qps", "-1"], 2, "--qps -1 is no rate"),
        ([], 2, "there is no rate"),
        (["--qps", "5", "--set", "x=nromal(0,1)"], 2, "did you mean 'normal'?"),
        (["--qps", "5", "--payload", "/nowhere"], 2, "cannot be read"),
        (["--qps", "5", "--assert", "(("], 2, "--assert '((' cannot work"),
        (["--qps", "5", "--assert", "lost == 0"], 2, "needs --e2e"),
        (["--qps", "5", "--stage", "1:2s"], 2, "contradict each other"),
        (["--closed", "5", "--qps", "5"], 2, "--closed and --qps contradict"),
        (["--closed", "5"], 2, "add --e2e"),
        (["--closed", "5", "--confirm", "--burst", "9:1s/2s"], 2, "--closed and --burst contradict"),
        (["--closed", "5", "--confirm", "--speed", "2x"], 2, "--closed and --speed contradict"),
        (["--closed", "5", "--confirm", "--arrivals", "poisson"], 2, "--closed and --arrivals poisson contradict"),
        (["--closed", "5", "--confirm", "--duration", "0s"], 2, "--duration 0 sends nothing"),
        (["--qps", "5", "--timeout", "1s"], 2, "--timeout is for --rpc and --http"),
        (["--qps", "5", "--in-flight", "9"], 2, "--in-flight goes only with --confirm and --http"),
        (["--qps", "5", "--http", "http://127.0.0.1:1"], 2, "--http and --broker contradict"),
        (["--qps", "5", "--pick", "random"], 2, "--pick does nothing in this run; it is the order of several payloads"),
        (["--qps", "5", "--rpc", "--settle", "5s"], 2, "--settle does nothing in this run"),
        (["--qps", "5", "--rpc", "--no-persistent"], 2, "--persistent does nothing in this run"),
        (["--qps", "5", "--e2e", "--phoenix", "ws://127.0.0.1:1/socket/websocket"], 3, "nothing listens at ws://"),
        (["--qps", "5", "--save", "/nowhere/run.jsonl"], 2, "cannot be written"),
    ],
)
def test_bad_input_is_one_line(embedded_bus: Bus, options: list[str], code: int, words: str) -> None:
    run = infertool("loadgen", "--broker", embedded_bus.broker.url, *options, **CREDENTIALS)
    assert run.returncode == code
    assert run.stderr.count("\n") <= (2 if code == 3 else 1), run.stderr
    assert words in run.stderr
    assert not run.stdout


def test_a_topic_that_cannot_be_joined(embedded_bus: Bus) -> None:
    run = infertool(
        "loadgen", "--broker", embedded_bus.broker.url, "--phoenix", embedded_bus.hub.url, "--qps", "5", "--e2e",
        INFERTOOL_PHOENIX__RESULT_TOPIC="nobody:knows", **CREDENTIALS,
    )  # fmt: skip
    assert run.returncode == 3
    assert "joining nobody:knows" in run.stderr


def test_no_password_is_kept(embedded_bus: Bus) -> None:
    saved = embedded_bus.folder / "run.jsonl"
    url = embedded_bus.broker.url.replace("stomp://", "stomp://admin:open-sesame@")
    run = infertool(
        "loadgen", "--broker", url, "--queue", embedded_bus.queue, "--qps", "50", "--count", "5", "--save", str(saved),
        "-o", "json",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["sent"] == 5
    assert "open-sesame" not in run.stdout + run.stderr + saved.read_text()
