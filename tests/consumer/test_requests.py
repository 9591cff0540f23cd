"""Requests that need no answer any more: their deadline has passed, or their caller is gone."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.memory.server import Server
from infertool.codec import Codec
from infertool.consumer import requests
from infertool.consumer.requests import deadline_ms
from infertool.message import BodyKind, Message, Properties, TypedMessage
from infertool.settings.broker import BrokerSettings
from tests.consumer.harness import wait_until
from tests.consumer.service import (
    CODECS,
    DEAD,
    Phoenix,
    Serve,
    answer,
    ask,
    settled,
    value_of,
)


def message(properties: Properties, headers: dict[str, str] | None = None) -> Message:
    return TypedMessage("m", "q", headers or {}, b"{}", BodyKind.TEXT, False, 1, "t", known=properties)


NOW_S = 1_800_000_000.25


@pytest.mark.parametrize(
    ("properties", "header", "expected_ms"),
    [
        (Properties(), None, None),
        (Properties(expires_ms=1_800_000_000_123), None, 1_800_000_000_123),
        (Properties(timestamp_ms=1_800_000_000_001, ttl_ms=500), None, 1_800_000_000_501),
        # Whole seconds: up to one was cut off.
        (Properties(timestamp_ms=1_800_000_000_000, ttl_ms=500), None, 1_800_000_001_499),
        # Without a timestamp from its arrival here, which is late but never early.
        (Properties(ttl_ms=500), None, NOW_S * 1000 + 500),
        (Properties(), "1800000000", 1_800_000_000_000),
        (Properties(), "1800000000.5", 1_800_000_000_500),
        (Properties(), "1800000000500", 1_800_000_000_500),
        (Properties(), "2027-01-15T08:00:00Z", 1_800_000_000_000),
        (Properties(), "2027-01-15T10:00:00+02:00", 1_800_000_000_000),
        (Properties(), "2027-01-15T08:00:00", 1_800_000_000_000),
        (Properties(expires_ms=5), "1800000000", 5),
        *((Properties(), text, None) for text in ("", "soon", "nan", "inf", "-inf", "2027-99-99", "1e999")),
    ],
)
def test_deadlines(properties: Properties, header: str | None, expected_ms: float | None) -> None:
    headers = {} if header is None else {"deadline": header}
    assert deadline_ms(message(properties, headers), NOW_S) == expected_ms


def _past() -> dict[str, dict[str, Any]]:
    now_ms = int(time.time() * 1000)
    ago = datetime.now(UTC) - timedelta(seconds=2)
    return {
        "lifetime": {"timestamp_ms": now_ms - 5001, "ttl_ms": 1000},
        "seconds": {"headers": {"deadline": str(now_ms / 1000 - 1)}},
        "milliseconds": {"headers": {"deadline": str(now_ms - 1)}},
        "iso": {"headers": {"deadline": ago.isoformat()}},
    }


@CODECS
@pytest.mark.parametrize("way", list(_past()))
def test_an_expired_request_is_answered_without_the_model(server: Server, serve: Serve, used: Codec, way: str) -> None:
    phoenix = Phoenix()
    calls: list[Any] = []
    service = serve(calls.append, publisher=phoenix)
    ask(server, used.encode({"event_id": "e"}), content_type=used.content_type, **_past()[way])
    reply = answer(server)
    assert reply.headers == {"status": "EXPIRED", "event_id": "e"}
    assert value_of(reply).items() >= {
        "status": "EXPIRED", "stage": "expired", "error_type": "Expired", "retryable": False, "event_id": "e",
    }.items()  # fmt: skip
    settled(server)
    wait_until(lambda: service.counts["expired"] == 1)
    assert not calls
    assert not (phoenix.published)
    assert not (server.held(DEAD))
    assert service.stats.snapshot().settled == 1


def test_what_is_not_expired_or_no_request_is_run(server: Server, serve: Serve) -> None:
    service = serve(lambda payload: payload)
    past, future = _past()["seconds"]["headers"], {"deadline": str(time.time() + 1000)}
    ask(server, b"{}", headers=future)
    ask(server, b"{}", headers={"deadline": "soon"})
    ask(server, b"{}", headers=past, reply_to=None)
    # Whoever replays it wants it done.
    ask(server, b"{}", headers={**past, "original_message_id": "old"})
    settled(server)
    wait_until(lambda: service.counts["succeeded"] == 4)
    assert service.counts["expired"] == 0


def test_a_request_that_expires_between_two_tries(server: Server, serve: Serve) -> None:
    tried = threading.Event()
    ended = time.time() + 0.2

    def model(_: Any) -> Any:
        tried.set()
        time.sleep(max(0.0, ended - time.time()) + 0.01)
        raise ValueError("try again")

    service = serve(model, max_attempts=100)
    ask(server, b"{}", headers={"deadline": str(ended)})
    assert answer(server).headers["status"] == "EXPIRED"
    settled(server)
    assert not server.held(DEAD)
    assert service.counts["expired"] == 1


class Caller:
    """A connection with a queue for replies."""

    def __init__(self, server: Server) -> None:
        settings = BrokerSettings(url=server.new_address().url)
        self.broker = brokers.open(settings)
        self.broker.connect()
        self.got: list[Message] = []
        self.replies = self.broker.open_replies(self.got.extend)
        assert self.replies.address
        self.address: str = self.replies.address

    def leave(self) -> None:
        self.broker.close(1.0)


def test_a_caller_that_is_gone_is_noticed_before_a_slow_model(
    server: Server, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "SLOW_S", 0.0)
    calls: list[Any] = []
    here, gone = Caller(server), Caller(server)
    gone.leave()
    # Only workers ask: the thread that reads must not wait.
    service = serve(lambda payload: calls.append(payload["n"]), concurrency="auto", max_concurrency=1)
    ask(server, b'{"n": 1}', reply_to=here.address)
    wait_until(lambda: here.got)
    here.got.clear()
    calls.clear()
    for number in range(20):
        ask(server, b'{"n": %d}' % number, reply_to=(here if number % 2 else gone).address)
    settled(server)
    wait_until(lambda: len(here.got) == 10)
    wait_until(lambda: service.counts["caller_gone"] == 10)
    assert sorted(calls) == list(range(1, 20, 2))
    assert (service.counts["succeeded"], service.counts["replies_lost"], len(server.held(DEAD))) == (11, 0, 0)
    here.leave()


def test_a_quick_model_asks_nobody_for_the_caller(server: Server, serve: Serve) -> None:
    gone = Caller(server)
    gone.leave()
    service = serve(lambda payload: payload)
    ask(server, b"{}", reply_to=gone.address)
    settled(server)
    wait_until(lambda: service.counts["replies_lost"] == 1)
    assert (service.counts["succeeded"], service.counts["caller_gone"]) == (1, 0)
