"""Replies that cannot be delivered: each is counted, its request is settled, and nothing else suffers."""

from __future__ import annotations

import itertools
import json
import threading

import pytest

from infertool.brokers.memory.server import Server
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
