"""What a consumer tells the person on call: what runs, what it holds, and each failure once, not a thousand times."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infertool.phoenix.frames import Frame
from tests.bus.conftest import Bus
from tests.support.embedded import EmbeddedBroker
from tests.support.phoenix_fake import Peer, fake_phoenix, is_push, polite
from tests.support.running import Running, infertool

pytestmark = pytest.mark.long

LONG = 240.0
DOCUMENT = (Path(__file__).parents[2] / "docs" / "logs.md").read_text()


def lines(consumer: Running) -> list[dict[str, Any]]:
    return [json.loads(line) for line in consumer.log.read_text().split("\n")[:-1]]


def statuses(consumer: Running) -> list[dict[str, Any]]:
    return [line for line in lines(consumer) if line.get("event") == "status"]


def wait_for(consumer: Running, condition: Callable[..., Any]) -> dict[str, Any]:
    """Wait until a status of the consumer meets `condition`; return it."""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        found = [status for status in statuses(consumer) if condition(status)]
        if found:
            return found[0]
        assert consumer.process.poll() is None, consumer.log.read_text()[-3000:]
        time.sleep(0.1)
    raise AssertionError(f"no such status:\n{consumer.log.read_text()[-3000:]}")


BASE = {"time", "level", "logger", "message"}


def documented(line: str) -> set[str]:
    """Return the fields that docs/logs.md names for a kind of line."""
    [row] = [row for row in DOCUMENT.split("\n") if row.startswith(f"| {line} ")]
    return set(re.findall(r"`(\w+)`", row)) - {"start", "status"}


FAST = {"INFERTOOL_TELEMETRY__STATUS_INTERVAL_S": "0.5"}


def test_with_json_logs_every_line_is_an_object_and_the_status_has_typed_fields(embedded_bus: Bus) -> None:
    consumer = embedded_bus.consume("--log-format", "json", **FAST)
    start = wait_for(consumer, lambda status: status["links"] == {"broker": "connected", "phoenix": "connected"})
    assert isinstance(start["rate"], float)
    embedded_bus.send(60, poison=40)
    done = wait_for(consumer, lambda status: status["succeeded"] == 20 and status["dead_lettered"] == 40)
    assert done["window"] == 200
    assert set(done["latency_ms"]) == {"p50", "p90", "p99", "max"}
    assert done["paused"] is False
    consumer.terminate()
    summary = consumer.finish()
    assert summary["dead_lettered"] == 40
    told = lines(consumer)  # the last notice and the sums are objects, too
    assert told[0]["event"] == "start"
    assert told[0]["concurrency"] == 16
    assert any("stopping" in line["message"] for line in told)
    failures = [line for line in told if line.get("stage") == "decode"]
    assert all(isinstance(line["attempts"], int) for line in failures)
    assert len(failures) < 10
    # However many sums a slow machine makes of them.
    assert sum(line.get("count", 1) for line in failures) == 40
    assert documented("the start") == told[0].keys() - BASE
    assert documented("the status") | set(summary) - {"processing_ms"} >= done.keys() - BASE
    assert documented("the status") <= done.keys() | {"p50", "p90", "p99", "max", "broker", "phoenix"}
    assert documented("a failure") <= failures[0].keys()
    assert documented("a sum of repeats") <= next(line for line in failures if "count" in line).keys()
    assert documented("a connection") <= next(line for line in told if line.get("side") == "broker").keys()


def test_an_idle_consumer_shows_that_it_is_idle(embedded_bus: Bus) -> None:
    consumer = embedded_bus.consume("--log-format", "json", **FAST)
    embedded_bus.send(500)
    busy = wait_for(consumer, lambda status: status["succeeded"] == 500)
    assert busy["rate"] > 0
    idle = wait_for(consumer, lambda status: status["succeeded"] == 500 and status["rate"] == 0)
    assert idle["latency_ms"]["p99"] is None
    assert idle["in_progress"] == 0
    consumer.terminate()
    assert consumer.finish()["rate"] > 0  # the summary keeps the totals


def test_what_is_held_and_what_waits_is_told(bus: Bus) -> None:
    consumer = bus.consume(
        "--log-format", "json", "--window", "20", model="sim:?min_ms=600000&max_ms=600000",
        INFERTOOL_CONSUME__STOP_DEADLINE_S="0.1", INFERTOOL_CONSUME__TIMEOUT_S="3600", **FAST,
    )  # fmt: skip
    bus.send(300)
    found = wait_for(consumer, lambda status: status["in_progress"] == 20 and status["waiting"] == 280)
    assert found["window"] == 20
    consumer.terminate()
    assert consumer.finish()["handed_back"] == 20


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_channel_that_confirms_nothing_is_told(embedded_bus: Bus, processes: str) -> None:
    with fake_phoenix(lambda peer, frame: None if is_push(frame) else polite(peer, frame)) as fake:
        consumer = embedded_bus.consume(
            "--log-format", "json", "--phoenix", fake.url, "--processes", processes,
            INFERTOOL_PHOENIX__CONFIRM="reply", INFERTOOL_CONSUME__STOP_DEADLINE_S="0.1", **FAST,
        )  # fmt: skip
        embedded_bus.send(3)
        found = wait_for(consumer, lambda status: status["unconfirmed"] == 3 and status["oldest_push_s"] >= 2)
        assert "phoenix connected, 3 pushes unconfirmed, oldest " in found["message"]
        consumer.terminate()
        assert consumer.finish()["handed_back"] == 3


def test_the_status_goes_on_while_the_end_waits_for_pushes(embedded_bus: Bus) -> None:
    held: list[tuple[Peer, Frame]] = []
    with fake_phoenix(
        lambda peer, frame: held.append((peer, frame)) if is_push(frame) else polite(peer, frame)
    ) as fake:
        consumer = embedded_bus.consume(
            "--log-format", "json", "--phoenix", fake.url,
            INFERTOOL_PHOENIX__CONFIRM="reply", INFERTOOL_CONSUME__STOP_DEADLINE_S="3600", **FAST,
        )  # fmt: skip
        embedded_bus.send(3)
        before = wait_for(consumer, lambda status: status["unconfirmed"] == 3)["oldest_push_s"]
        consumer.terminate()
        wait_for(consumer, lambda status: status["unconfirmed"] == 3 and status["oldest_push_s"] >= before + 5)
        for peer, frame in held:
            peer.reply(frame, "ok", {})
        assert consumer.finish()["succeeded"] == 3


@pytest.mark.parametrize("processes", ["1", "2"])
def test_thousands_of_poison_events_are_a_handful_of_lines(embedded_bus: Bus, processes: str) -> None:
    consumer = embedded_bus.consume("--processes", processes, "--exit-when-idle", "2s")
    embedded_bus.send(3000, poison=3000)
    assert consumer.finish(LONG)["dead_lettered"] == 3000
    text = consumer.log.read_text()
    told = [line for line in text.split("\n") if "failed at decode" in line]
    assert any(re.search(r"\+ \d+ more failures in \d+ s", line) for line in told), text
    named = [re.search(r" \[(\d+)\]$", line) for line in told]
    assert len({found[1] if found else None for found in named}) <= int(processes)
    assert all(named) if processes == "2" else not any(named), text
    # One at once and one for each ten seconds, of each process.
    assert len(told) < 100, text


def test_a_broker_that_stays_away_is_told_once_and_then_summed_up(embedded_bus: Bus) -> None:
    broker = EmbeddedBroker().start()
    bus = Bus(broker, embedded_bus.hub, embedded_bus.folder, embedded_bus.viewer)
    consumer = bus.consume(INFERTOOL_BROKER__RECONNECT_MAX_S="0.05")
    deadline = time.monotonic() + LONG
    while "broker connected" not in consumer.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    broker.stop()
    while "more changes of the connection to broker in" not in consumer.log.read_text() and time.monotonic() < deadline:
        assert consumer.process.poll() is None
        time.sleep(0.1)
    lost = [line for line in consumer.log.read_text().split("\n") if "broker lost:" in line]
    bus.close()
    assert "more changes of the connection to broker in" in lost[-1]
    # Tries every 50 ms at most would have been hundreds of lines.
    assert len(lost) < 20, lost


def test_the_simulator_is_not_let_loose_on_a_real_bus() -> None:
    for url in ("stomp://mq.example.com:61613", "stomp://127.0.0.1:61613,10.1.2.3:61613", "stomp://user:pw@192.0.2.1"):
        refused = infertool("consume", "--broker", url)
        assert refused.returncode == 2
        assert "no model is set" in refused.stderr
        assert "--model" in refused.stderr
        assert "pw@" not in refused.stderr
        assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.1.2.3"])
def test_on_this_machine_the_simulator_runs_and_is_named(host: str) -> None:
    # Nothing listens there: the start line comes before that is found out.
    ended = infertool("consume", "--broker", f"stomp://{host}:1", "--publish", "none")
    assert ended.returncode == 3
    assert "model sim: (the simulator" in ended.stderr


def test_who_asks_for_the_simulator_gets_it(tmp_path: Path) -> None:
    settings = tmp_path / "infertool.toml"
    settings.write_text('[model]\nspec = "sim:"\n')
    for asked in (["--model", "sim:"], ["--config", str(settings)]):
        ended = infertool(
            "consume", "--broker", "stomp://127.0.0.1:1,[::ffff:127.0.0.2]:1", "--publish", "none", *asked
        )
        assert ended.returncode == 3, ended.stderr
