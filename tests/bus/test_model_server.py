"""A model server that goes away, comes back, refuses and breaks: events wait for it, and none fails for its sake."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.bus.conftest import Bus
from tests.bus.faulty import LONG
from tests.support.modelserver import ModelServer, Reply, Request, answer, reply
from tests.support.running import Running

QUICK = {"INFERTOOL_MODEL__CIRCUIT_WAIT_S": "0.3", "INFERTOOL_CONSUME__RETRY_BASE_S": "0.05"}
BROKEN = reply(b'{"error": "out of memory"}', "500 Internal Server Error")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    running = ModelServer().start()
    yield running
    running.stop()


def first(count: int, given: Reply) -> Callable[[Request], Reply]:
    """Return a handler that gives `given` to the first `count` requests, and then good answers."""
    numbers = itertools.count()
    return lambda _request: given if next(numbers) < count else answer({"class": "A"})


def all_succeeded(bus: Bus, consumer: Running, ids: list[str]) -> dict[str, Any]:
    summary = consumer.finish()
    assert (summary["succeeded"], summary["dead_lettered"]) == (len(ids), 0)
    assert bus.viewer.wait(len(ids), LONG)
    assert set(bus.viewer.results) == set(ids)
    assert not bus.viewer.alerts
    assert bus.left() == 0
    assert not bus.dead_ids()
    return summary


def attempts(bus: Bus) -> set[int]:
    return {document["attempts"] for document in bus.viewer.payloads.values()}


@pytest.mark.activemq
def test_the_server_goes_away_and_comes_back(real_bus: Bus, server: ModelServer) -> None:
    bus = real_bus
    ids = bus.send(300)
    stopping = first(100, answer({"class": "A"}))

    def handler(request: Request) -> Reply:
        time.sleep(0.01)
        return stopping(request)

    server.handler = handler
    options = ("--window", "20", "--concurrency", "4", "--max-attempts", "1")
    killed = bus.consume(*options, model=server.url, **QUICK)
    assert bus.viewer.wait(50, LONG)
    server.stop()
    killed.wait_for("is unavailable: http://127.0.0.1")
    killed.wait_for("cannot be reached: Connection refused; events wait")
    killed.kill()
    stopped = bus.consume(*options, model=server.url, **QUICK)
    stopped.wait_for("circuit half-open")
    stopped.terminate()
    summary = stopped.finish()
    assert summary["handed_back"] == 20, "what is held is within the window, and no more than that"
    assert summary["circuit"] in {"open", "half-open"}
    consumer = bus.consume(*options, "--exit-when-idle", "1s", model=server.url, **QUICK)
    consumer.wait_for("is unavailable")
    server.start()
    summary = consumer.finish()
    assert (summary["dead_lettered"], summary["retried"], summary["circuit"]) == (0, 0, "closed")
    assert summary["circuit_opened"] >= 1
    assert summary["held"] >= 20
    assert bus.viewer.wait(300, LONG)
    assert set(bus.viewer.results) == set(ids)
    assert attempts(bus) == {1}
    assert bus.left() == 0
    assert not bus.dead_ids()


def test_a_server_that_asks_for_a_pause_gets_it(embedded_bus: Bus, server: ModelServer) -> None:
    bus = embedded_bus
    ids = bus.send(40)
    asked: list[float] = []
    answers = first(1, reply(b"", "429 Too Many Requests", retry_after="2"))

    def handler(request: Request) -> Reply:
        asked.append(time.monotonic())
        return answers(request)

    server.handler = handler
    options = ("--concurrency", "1", "--max-attempts", "1", "--exit-when-idle", "1s")
    consumer = bus.consume(*options, model=server.url, **QUICK)
    all_succeeded(bus, consumer, ids)
    assert attempts(bus) == {1}
    assert asked[1] - asked[0] >= 2, "asked again before the pause was over"


def test_failures_of_all_events_open_the_circuit(embedded_bus: Bus, server: ModelServer) -> None:
    bus = embedded_bus
    ids = bus.send(60)
    server.handler = first(12, BROKEN)
    options = ("--concurrency", "4", "--max-attempts", "9", "--exit-when-idle", "1s")
    summary = all_succeeded(bus, bus.consume(*options, model=server.url, **QUICK), ids)
    assert summary["circuit_opened"] >= 2
    assert summary["held"] > 0
    assert summary["retried"] <= 12


@pytest.mark.parametrize(
    "given",
    [
        Reply(b'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"class', close=True),
        reply(b"<html>gateway</html>"),
        Reply(b"", close=True),
    ],
    ids=["cut", "garbage", "dropped"],
)
def test_broken_answers_now_and_then_cost_tries_only(embedded_bus: Bus, server: ModelServer, given: Reply) -> None:
    bus = embedded_bus
    ids = bus.send(60)
    numbers = itertools.count()
    server.handler = lambda _request: answer({"class": "A"}) if next(numbers) % 7 else given
    options = ("--concurrency", "4", "--max-attempts", "9", "--exit-when-idle", "1s")
    summary = all_succeeded(bus, bus.consume(*options, model=server.url, **QUICK), ids)
    assert (summary["circuit_opened"], summary["held"]) == (0, 0)


def test_events_that_break_the_server_are_found_even_when_there_are_no_others(
    embedded_bus: Bus, server: ModelServer
) -> None:
    bus = embedded_bus
    ids = bus.send(6)
    server.handler = lambda _request: BROKEN
    options = ("--max-attempts", "2", "--exit-when-idle", "1s")
    summary = bus.consume(*options, model=server.url, **QUICK).finish()
    assert (summary["succeeded"], summary["dead_lettered"], summary["retried"]) == (0, 6, 6)
    assert sorted(bus.dead_ids()) == sorted(ids)
    assert bus.viewer.wait(6, LONG)
    assert {document["attempts"] for document in bus.viewer.payloads.values()} == {2}
    assert '500: {"error": "out of memory"}' in bus.viewer.payloads[ids[0]]["error"]


def test_events_that_the_server_refuses_are_dead_letters_at_once(embedded_bus: Bus, server: ModelServer) -> None:
    bus = embedded_bus
    ids = bus.send(30)

    def handler(request: Request) -> Reply:
        number = int(request.json["request_id"].removeprefix("r-"))
        refused = reply(b'{"detail": "no such class"}', "422 Unprocessable Entity")
        return refused if number % 10 == 3 else answer({"class": "A"})

    server.handler = handler
    consumer = bus.consume("--max-messages", "30", model=server.url)
    summary = consumer.finish()
    assert (summary["succeeded"], summary["dead_lettered"], summary["retried"]) == (27, 3, 0)
    assert sorted(bus.dead_ids()) == sorted([ids[3], ids[13], ids[23]])
    assert summary["circuit_opened"] == 0
    assert len(server.requests) == 30


def test_secrets_of_a_server_never_show(embedded_bus: Bus, server: ModelServer) -> None:
    bus = embedded_bus
    bus.send(5)
    server.handler = lambda request: reply(json.dumps(request.headers).encode(), "400 Bad Request")
    url = f"{server.url}?api_key=Hush-me"
    consumer = bus.consume(
        "--debug", "--max-messages", "5", INFERTOOL_MODEL__SPEC=url, INFERTOOL_MODEL__TOKEN="Hush-me/31", model=url
    )
    consumer.finish()
    assert server.requests[0].headers["authorization"] == "Bearer Hush-me/31"
    letters = bus.drain(bus.dlq)
    assert len(letters) == 5
    assert bus.viewer.wait(5, LONG)
    shown = consumer.log.read_text() + repr(letters) + repr(bus.viewer.payloads)
    assert "400" in shown
    assert "Hush-me" not in shown


def test_an_event_that_breaks_every_batch_is_found(embedded_bus: Bus, server: ModelServer) -> None:
    bus = embedded_bus
    ids = bus.send(40)

    def handler(request: Request) -> Reply:
        events = request.json if isinstance(request.json, list) else [request.json]
        if any(event["event_id"] == ids[7] for event in events):
            return BROKEN
        return answer([{"class": "A"} for _ in events])

    server.handler = handler
    options = ("--batch-size", "16", "--concurrency", "2", "--max-attempts", "2", "--exit-when-idle", "1s")
    summary = bus.consume(*options, model=server.url, **QUICK).finish()
    assert (summary["succeeded"], summary["dead_lettered"]) == (39, 1)
    assert bus.dead_ids() == [ids[7]]
    assert max(len(request.json) for request in server.requests if request.body.startswith(b"[")) > 1


def test_a_model_server_needs_no_processes(embedded_bus: Bus, server: ModelServer) -> None:
    consumer = embedded_bus.consume("--executor", "processes", model=server.url)
    assert consumer.process.wait(60) == 2
    assert "use --executor threads" in consumer.log.read_text()
