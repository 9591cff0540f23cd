"""What a message consists of survives: body, kind, headers of every odd kind, properties."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from infertool.brokers import header_types
from infertool.brokers.port import Broker
from infertool.message import BodyKind, Identity, Outgoing, Properties
from tests.brokers.conformance.conftest import Verdict
from tests.brokers.conformance.targets import Opened, Target
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, send_all, take

TEXTS = [
    b"", b"{}", b"nul \0 in it", "grüße 漢字 \U0001f600".encode(), b'{"deep":' * 3000, b"x" * 1024 * 1024,
    b"x" * 5_000_000,
]  # fmt: skip
HEADERS = {
    "request_id": "a:b\\c\nd\re", "name": "grüße 漢字 \U0001f600", "empty": "", "dlq_error": "x" * 1024,
    "colon:name": "1", "spaces": "  both  ", "percent": "%s %d %%", "quote": "it's", "with-dash": "1", "number": "007",
    "true": "false", "Case": "a", "case": "b",
}  # fmt: skip


TYPED = {
    "retries": 3, "least": -(2**63), "share": 0.5, "express": True, "key": b"\0\xff",
    "due": datetime(2026, 1, 31, 3, tzinfo=UTC), "price": Decimal("12.50"), "nothing": None,
    "customer": {"id": 7, "tags": ["a", 1, b"x"]}, "text": "7",
}  # fmt: skip


@pytest.mark.case("body and kind")
@pytest.mark.parametrize(
    ("body", "kind"),
    [(body, BodyKind.TEXT) for body in TEXTS] + [(body, BodyKind.BYTES) for body in (*TEXTS, b"\xff\xfe not utf-8")],
    ids=lambda value: value if isinstance(value, BodyKind) else f"{len(value)}",
)
def test_body_and_kind(broker: Broker, queue: str, kind: BodyKind, body: bytes) -> None:
    send_all(broker, [Outgoing(queue, body, kind)])
    [message] = take(broker.subscribe(queue, window=1), 1)
    assert message.body == body
    assert message.kind is kind
    assert not message.redelivered
    assert not message.hides_body


@pytest.mark.case("headers of every odd kind")
def test_headers(broker: Broker, queue: str) -> None:
    send_all(broker, [Outgoing(queue, b"body", headers=HEADERS)])
    [message] = take(broker.subscribe(queue, window=1), 1)
    assert {name: message.headers[name] for name in HEADERS} == HEADERS
    assert HEADERS.items() <= message.native.items()
    assert (message.source, message.body, message.kind) == (queue, b"body", BodyKind.TEXT)


@pytest.mark.case("headers keep their types")
def test_header_types(broker: Broker, queue: str, verdict: Verdict) -> None:
    headers, types = header_types.to_texts(TYPED)
    send_all(broker, [Outgoing(queue, b"body", headers=headers, types=types)])
    [message] = take(broker.subscribe(queue, window=1), 1)
    assert message.headers == headers
    if broker.capabilities.header_types:
        assert header_types.from_texts(message.headers, message.types) == TYPED
    else:
        assert not message.types
        verdict("no: they arrive as texts")


@pytest.mark.case("what only AMQP has: content encoding, message id")
def test_amqp_properties(broker: Broker, queue: str) -> None:
    sent = Properties(content_encoding="gzip", message_id="id:1")
    send_all(broker, [Outgoing(queue, b"body", properties=sent)])
    [message] = take(broker.subscribe(queue, window=1), 1)
    assert (message.properties.content_encoding, message.properties.message_id) == ("gzip", "id:1")
    assert message.headers == {}


@pytest.mark.case("properties")
@pytest.mark.parametrize("persistent", [True, False])
def test_properties(target: Target, broker: Broker, queue: str, persistent: bool, verdict: Verdict) -> None:
    expires = int(time.time() * 1000) + 3_600_000
    sent = Properties(
        correlation_id="c:1\\", reply_to=broker.conventions.queue("answers"), content_type="application/json",
        type="event", priority=7, expires_ms=expires, persistent=persistent,
    )  # fmt: skip
    send_all(broker, [Outgoing(queue, b"body", headers={"own": "1"}, properties=sent)])
    [message] = take(broker.subscribe(queue, window=1), 1)
    found = message.properties
    assert (found.correlation_id, found.reply_to, found.type) == ("c:1\\", sent.reply_to, "event")
    assert found.content_type == "application/json"
    assert message.correlation_id == "c:1\\"
    assert message.headers == {"own": "1"}
    if not target.keeps_priorities:
        assert (found.priority, found.expires_ms, found.persistent) == (None, None, True)
        verdict("no priority and no end; all are persistent")
        return
    assert (found.priority, found.persistent) == (7, persistent)
    if found.expires_ms is None:
        assert found.ttl_ms is not None
        assert 0 <= 3_600_000 - found.ttl_ms < TIMEOUT_S * 1000
        verdict("with the time to live in place of the end")
    else:
        assert found.expires_ms == expires
    assert found.timestamp_ms is not None
    assert abs(found.timestamp_ms / 1000 - time.time()) < 3600
    assert message.correlation_id == "c:1\\"
    assert message.headers == {"own": "1"}
    assert message.death is None


@pytest.mark.case("a message without headers or properties")
def test_nothing(broker: Broker, queue: str) -> None:
    send_all(broker, [Outgoing(queue, b"")])
    [message] = take(broker.subscribe(queue, window=1), 1)
    assert message.headers == {}
    assert message.id
    assert (message.properties.correlation_id, message.properties.reply_to, message.properties.expires_ms) == (
        None, None, None,
    )  # fmt: skip


@pytest.mark.case("identity stays over redeliveries, and tells messages apart")
def test_identity(opened: Opened, connect: Connect, queue: str) -> None:
    identities: list[list[Identity]] = []
    for _ in range(2):
        broker = connect(opened.url)
        if not identities:
            send_all(broker, [Outgoing(queue, b"same"), Outgoing(queue, b"same"), Outgoing(queue, b"other")])
        identities.append([message.identity for message in take(broker.subscribe(queue, window=3), 3)])
        broker.close(5)
    assert identities[0] == identities[1]
    assert len(set(identities[0])) == 3
