"""Replies that cannot be delivered: each is counted, its request is settled, and nothing else suffers."""

from __future__ import annotations

import itertools
import json
import threading

import pytest

from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Server
from infertool.codec import JSON, MSGPACK, Codec
from infertool.telemetry import signals as o
from infertool.telemetry.logs import LogObserver
from tests.consumer.harness import wait_until
from tests.consumer.service import (
    DEAD,
    Serve,
    answer,
    ask,
    settled,
)


@pytest.mark.parametrize("reply_to", ["/topic/a", "a,b", "with space", "/queue/", "a/b" * 3000, "no*wildcard"])
def test_a_reply_to_that_is_no_queue_is_counted_and_harms_nobody(server: Server, serve: Serve, reply_to: str) -> None:
    service = serve(lambda payload: payload)
    ask(server, b"{}", reply_to=reply_to)
    ask(server, b'{"x": 1}', correlation_id="next")
    assert answer(server).properties.correlation_id == "next"
    settled(server)
    wait_until(lambda: service.counts["replies_lost"] == 1)
    assert (service.counts["succeeded"], service.counts["replied"], len(server.held(DEAD))) == (2, 1, 0)


def test_a_header_that_the_broker_cannot_carry_is_left_out(
    server: Server, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(lambda payload: payload)
    fits = lambda _self, _name, value: len(value) < 100  # noqa: E731
    monkeypatch.setattr(type(service.consumer._broker.conventions), "fits", fits)
    ask(server, json.dumps({"event_id": "e" * 5000}).encode())
    assert answer(server).headers.keys() == {"status", "processing_ms"}


def test_queues_that_are_gone_or_must_not_be_written_to(server: Server, serve: Serve) -> None:
    service = serve(lambda payload: 1 / payload["x"], max_attempts=1)
    service.address.faults.refuse_queue("private", "access refused for this user")
    for x, reply_to in itertools.product((0, 1), ("private", "replies:999")):
        ask(server, json.dumps({"x": x}).encode(), reply_to=reply_to)
    settled(server)
    wait_until(lambda: service.counts["replies_lost"] == 4)
    assert (service.counts["succeeded"], service.counts["dead_lettered"]) == (2, 2)
    assert {each.reason for each in service.signals if isinstance(each, o.ReplyLost)} > {"access refused for this user"}


@pytest.mark.parametrize("used", [JSON, MSGPACK], ids=lambda used: used.name)
@pytest.mark.parametrize("then", [None, Effect.CUT_BEFORE, Effect.CUT_AFTER])
def test_in_place_of_a_large_reply_that_is_refused_its_caller_gets_a_failure(
    server: Server, serve: Serve, used: Codec, then: Effect | None
) -> None:
    """It may be more than the broker takes: its caller would wait until the deadline."""
    service = serve(lambda _payload: "x" * 100_000)
    service.address.faults.plan(Operation.SEND, Effect.REFUSE, reason="too large")
    if then:
        service.address.faults.plan(Operation.SEND, then, skip=1)
    ask(server, used.encode({}), content_type=used.content_type)
    got = answer(server)
    said = used.decode(got.body)
    assert (got.headers["status"], said["status"], said["stage"]) == ("FAILED", "FAILED", "reply")
    assert "of 100002 bytes cannot be delivered: too large" in said["error"] or used is MSGPACK
    settled(server)
    wait_until(lambda: service.consumer._publisher.pending().count == 0)
    counts = service.counts
    assert (counts["replies_lost"], counts["replied"], counts["succeeded"], len(server.held(DEAD))) == (1, 0, 1, 0)


def test_a_failure_that_is_refused_as_well_is_the_end(server: Server, serve: Serve) -> None:
    service = serve(lambda _payload: "x" * 100_000)
    service.address.faults.refuse_queue("private", "access refused for this user")
    ask(server, b"{}", reply_to="private")
    ask(server, b"{}", reply_to="replies:999")
    settled(server)
    wait_until(lambda: service.counts["replies_lost"] == 2)
    wait_until(lambda: service.consumer._publisher.pending().count == 0)
    assert (service.counts["replied"], len(server.held(DEAD))) == (0, 0)


def test_ten_thousand_replies_that_nobody_waits_for(
    server: Server, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("infertool.telemetry.logs.write", lambda _level, text, _fields: lines.append(text))
    before = set(threading.enumerate())
    service = serve(lambda payload: payload)
    log = LogObserver()
    for number in range(10_000):
        ask(server, b"{}", reply_to="replies:999", correlation_id=f"c{number}")
    settled(server)
    wait_until(lambda: service.counts["replies_lost"] == 10_000)
    assert (service.counts["succeeded"], len(server.held(DEAD))) == (10_000, 0)
    assert service.consumer._publisher.pending().count == 0
    assert len([thread for thread in set(threading.enumerate()) - before if "repl" in thread.name]) == 1
    for signal in service.signals:
        log(signal)
    log.close()
    told = [line for line in lines if "cannot be delivered" in line]
    assert 1 <= len(told) <= 10
