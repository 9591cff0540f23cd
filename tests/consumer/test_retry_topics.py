"""Events that wait in retry topics, on the broker in process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infertool.app.consumer import check_queues
from infertool.brokers.memory import adapter
from infertool.brokers.memory.adapter import CAPABILITIES
from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Server
from infertool.consumer import dead_letter_writer, weighted
from infertool.consumer.waiting import Delayed
from infertool.deadletters import delayed
from infertool.deadletters.letters import read
from infertool.errors import SettingsError
from infertool.message import BodyKind, Message, Outgoing, Properties
from infertool.settings import Settings
from infertool.settings.broker import BrokerSettings
from infertool.settings.tree import DeadLetterSettings
from tests.consumer.harness import LONG, wait_until
from tests.consumer.moving import DEAD, QUEUE, Run, calls, numbers, threads
from tests.consumer.service import hurry

HOUR = f"{QUEUE}.retry.1h"
WEEK_S = 7 * 24 * 3600
Start = Callable[..., Run]


@pytest.fixture(params=[True, False], ids=["atomic", "in steps"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    hurry(monkeypatch)
    with Server(f"retries-{next(numbers)}", replace(CAPABILITIES, atomic_move=request.param)) as server:
        yield server


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def start(*retry_topics: str, **consume: Any) -> Run:
        with threads() as pool:
            folder = tmp_path / f"{len(runs)}"
            runs.append(Run(server, folder, pool, QUEUE, retry_topics=retry_topics, **consume))
        return runs[-1]

    yield start
    for run in runs:
        run.end()


def send(server: Server, headers: dict[str, str] | None = None, **payload: Any) -> str:
    """Send one event; return the id that the broker gives it."""
    server.send(Outgoing(QUEUE, json.dumps(payload).encode(), headers=headers or {}))
    return server.held(QUEUE)[-1].id


def letter(server: Server) -> Message:
    wait_until(lambda: server.held(DEAD))
    [stored] = server.held(DEAD)
    outgoing = stored.outgoing
    body, kind = outgoing.body, outgoing.kind
    return Message("d", DEAD, outgoing.headers, body, kind, redelivered=False, epoch=1, token="")


@pytest.mark.parametrize("known", ["header", "payload", "broker"])
def test_an_event_waits_in_each_topic_and_dies_as_the_event_that_it_was(
    server: Server, start: Start, tmp_path: Path, known: str
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    headers = {"event_id": "mine"} if known == "header" else {}
    payload_id = "mine" if known == "payload" else "its"
    message_id = send(server, headers, event_id=payload_id, fails="again", hold=str(hold))
    before = time.time()
    run = start("20ms", "40ms", max_attempts=2)
    found = read(letter(server))
    expected = {"header": "mine", "payload": "mine", "broker": "its"}[known]
    assert (found.origin, found.original_id, found.told_id) == (QUEUE, message_id, expected)
    assert (found.attempts, calls(hold)) == (6, 6)
    assert before - 0.01 <= (found.first_failed_at or 0) <= (found.failed_at or 0) - 0.06
    assert not [name for name in found.message.headers if "retry" in name]
    wait_until(lambda: run.counts["dead_lettered"])
    assert (run.counts["delayed"], run.counts["failed"], run.counts["retried"]) == (2, 1, 5)
    [alert] = run.publisher.documents
    assert (alert["status"], alert["event_id"], alert["attempts"]) == ("FAILED", expected, 6)
    for stage in ("20ms", "40ms"):
        assert not server.held(f"{QUEUE}.retry.{stage}")


def test_an_event_without_any_id_keeps_that_of_the_broker(
    server: Server, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = tmp_path / "ready"
    message_id = send(server, until=str(ready))
    run = start("1h", max_attempts=1)
    wait_until(lambda: run.counts["delayed"] == 1)
    ready.touch()
    monkeypatch.setattr(weighted, "time", SimpleNamespace(time=lambda: time.time() + 3700))
    wait_until(lambda: run.counts["succeeded"])
    assert run.publisher.of() == {message_id: 1}
    assert run.publisher.documents[0]["attempts"] == 2


def test_the_wait_holds_nothing_up_and_outlives_a_restart(
    server: Server, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, hold = tmp_path / "ready", tmp_path / "hold"
    hold.touch()
    send(server, event_id="late", until=str(ready), hold=str(hold))
    first = start("1h", max_attempts=1, window=1)
    for n in range(5):
        send(server, event_id=f"{n}")
    wait_until(lambda: first.counts["succeeded"] == 5)
    wait_until(lambda: first.counts["delayed"] == 1)
    wait_until(lambda: not server.held(QUEUE))
    [stored] = server.held(HOUR)
    assert 3600 - LONG < delayed.due_s(message(stored.outgoing.headers)) - time.time() <= 3600
    wait_until(lambda: stored.deliveries == 1)
    first.end()
    second = start("1h", max_attempts=1)
    wait_until(lambda: stored.deliveries == 2)
    assert (len(second.consumer._in_flight), second.counts["received"], calls(hold)) == (0, 0, 1)
    ready.touch()
    monkeypatch.setattr(weighted, "time", SimpleNamespace(time=lambda: time.time() + 3700))
    wait_until(lambda: second.counts["succeeded"] == 1)
    assert second.publisher.of() == {"late": 1}
    wait_until(lambda: not server.held(DEAD))


def test_what_cannot_help_is_a_dead_letter_at_once(server: Server, start: Start) -> None:
    send(server, fails="for good")
    run = start("1h")
    assert read(letter(server)).attempts == 1
    assert (run.counts["delayed"], server.held(HOUR)) == (0, [])


def test_an_event_that_waits_goes_with_its_partition(server: Server, start: Start, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    partitions = server.partition(HOUR, 1)
    send(server, event_id="a", until=str(ready))
    first = start("1h", max_attempts=1)
    partitions.assign(first.address)
    wait_until(lambda: server.held(HOUR) and server.held(HOUR)[0].deliveries)
    intake = first.consumer
    partitions.begin_revoke(*partitions.names)
    wait_until(lambda: first.released)
    partitions.end_revoke(*partitions.names)
    wait_until(lambda: not len(intake._in_flight))
    assert first.counts["revoked"] == 0
    second = start("1h", max_attempts=1)
    partitions.assign(second.address)
    wait_until(lambda: server.held(HOUR)[0].deliveries == 2)


def test_a_move_that_is_not_confirmed_may_double_the_event_with_one_id(server: Server, start: Start) -> None:
    send(server, fails="again")
    run = start("1h", max_attempts=1)
    run.address.faults.plan(Operation.SEND, Effect.CUT_AFTER)
    wait_until(lambda: server.held(HOUR) and not server.held(QUEUE))
    copies = {stored.outgoing.headers[delayed.RETRY_ID] for stored in server.held(HOUR)}
    assert len(copies) == 1


def test_an_event_waits_with_the_time_of_its_move_and_dies_with_its_own(
    server: Server, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention deletes the events of a retry topic by their times."""
    sent_ms = int((time.time() - WEEK_S) * 1000)
    server.send(Outgoing(QUEUE, b'{"fails": "again"}', properties=Properties(timestamp_ms=sent_ms)))
    before_ms = time.time() * 1000
    run = start("1h", max_attempts=1)
    wait_until(lambda: run.counts["delayed"] == 1)
    [waits] = server.held(HOUR)
    assert waits.sent_ms >= before_ms - 1
    monkeypatch.setattr(weighted, "time", SimpleNamespace(time=lambda: time.time() + 3700))
    assert letter(server).headers["original_timestamp"] == str(sent_ms)


@pytest.mark.parametrize("waits", [(), ("20ms",)], ids=["none", "retry topic"])
def test_headers_of_a_producer_are_not_those_of_retry_topics(
    server: Server, start: Start, waits: tuple[str, ...]
) -> None:
    theirs = {
        delayed.ORIGIN: "payments", delayed.MESSAGE_ID: "m", delayed.EVENT_ID: "e", delayed.ATTEMPTS: "7",
        delayed.TIMESTAMP: "12", "infertool_retry_kept_x": "x",
    }  # fmt: skip
    message_id = send(server, theirs, fails="again")
    run = start(*waits, max_attempts=1)
    found = read(letter(server))
    assert (found.origin, found.original_id, found.attempts) == (QUEUE, message_id, 1 + len(waits))
    assert found.told_id == message_id
    assert {name: found.message.headers.get(name) for name in theirs} == theirs
    wait_until(lambda: run.counts["dead_lettered"])


def test_what_a_retry_topic_refuses_is_told_and_holds_up_no_dead_letter(
    server: Server, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second wait has no end."""
    waits = SimpleNamespace(wait=lambda failures: 0.001 if failures < 2 else LONG * 100)
    monkeypatch.setattr(dead_letter_writer, "REFUSED_BACKOFF", waits)
    run = start("1h", max_attempts=1)
    run.address.faults.refuse_queue(HOUR)
    send(server, event_id="again", fails="again")
    wait_until(lambda: len(run.warnings) >= 3)
    refused, stuck, _ = run.warnings
    assert f"refused to move to {HOUR}: this queue takes nothing" in refused
    assert f"events that cannot be moved to {HOUR}: again; the broker says" in stuck
    send(server, event_id="dead", fails="for good")
    assert read(letter(server)).told_id == "dead"


def message(headers: dict[str, str] | Any, name: str = "m", partition: str = "") -> Message:
    body, kind = b"{}", BodyKind.TEXT
    return Message(name, HOUR, headers, body, kind, redelivered=False, epoch=1, token=name, partition=partition)


@pytest.mark.parametrize(
    ("due", "at"),
    [("", 0), ("abc", 0), ("nan", 0), ("inf", 0), ("-5000", 0), ("12000", 12), ("1e300", 60), ("60001", 60)],
)
def test_an_odd_due_time_is_now_or_after_the_wait(due: str, at: float) -> None:
    waiting = Delayed(60.0)
    waiting.add([message({delayed.DUE: due} if due else {})], 0.0)
    assert waiting.is_ready(at)
    assert at == 0 or not waiting.is_ready(at - 0.001)


def test_what_is_due_first_comes_first_whatever_its_partition() -> None:
    waiting = Delayed(60.0)
    for name, due in (("late", 30_000), ("early", 10_000), ("middle", 20_000)):
        waiting.add([message({delayed.DUE: str(due)}, name, f"p/{name}")], 0.0)
    assert [found.id for found in waiting.remove({"p/middle"})] == ["middle"]
    assert [waiting.pop().id for _ in range(len(waiting))] == ["early", "late"]


@pytest.mark.parametrize("attempts", ["", "x", "-1", "9" * 5000, "²"])
def test_odd_attempts_are_none(attempts: str) -> None:
    assert delayed.past(message({delayed.ATTEMPTS: attempts})).attempts == 0


@pytest.mark.parametrize(
    ("url", "waits", "why"),
    [
        ("stomp://localhost:61613", ["30s"], "is for Kafka, and broker.url is stomp://"),
        ("amqp://localhost", ["30s"], "is for Kafka, and broker.url is amqp://"),
        ("memory://log", ["soon"], "'soon' is not a duration"),
        ("memory://log", ["0s"], "its wait is 0"),
        ("memory://log", ["30s", "30s"], "is used already"),
        ("memory://log", ["30s", "5m"], ""),
        ("stomp://localhost:61613", [], ""),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    monkeypatch: pytest.MonkeyPatch, url: str, waits: list[str], why: str
) -> None:
    monkeypatch.setattr(adapter, "CAPABILITIES", replace(CAPABILITIES, log=True))
    dead = DeadLetterSettings(queue="t.dlq", retry_topics=waits)
    settings = Settings(broker=BrokerSettings(url=url, queue="t"), deadletter=dead)
    if not why:
        check_queues(settings)
        return
    with pytest.raises(SettingsError, match="retry_topics") as refused:
        check_queues(settings)
    assert why in str(refused.value)
