"""STOMP: headers of the adapter's own, patterns, wide windows. The rest is in tests/brokers/conformance."""

from __future__ import annotations

import pytest

from infertool.brokers.headers import text
from infertool.message import BodyKind, Outgoing
from tests.brokers.conftest import Connect
from tests.support.brokers import Server, measured, new_queue, numbered, send_all, take

HEADERS = {
    "request_id": "a:b\\c\nd\re", "name": "grüße 漢字 \U0001f600", "empty": "",
    "correlation-id": "c:1", "priority": "7", "type": "event", "reply-to": "/queue/answers",
    "dlq_error": "x" * 1024, "colon:name": "1",
}  # fmt: skip


def test_headers_survive_and_those_of_an_earlier_delivery_are_not_sent(server: Server, connect: Connect) -> None:
    queue, broker = new_queue(), connect(server.url)
    stale = {
        "message-id": "old", "subscription": "old", "ack": "old", "destination": "/queue/elsewhere", "receipt": "old",
        "content-length": "1", "transaction": "old", "redelivered": "true", "persistent": "false",
        "amq-msg-type": "bytes",
    }  # fmt: skip
    send_all(broker, [Outgoing(queue, b"body", headers={**HEADERS, **stale})])
    [message] = take(broker.subscribe(queue, window=1), 1)
    assert {name: text(message)[name] for name in HEADERS} == HEADERS
    assert (message.source, message.body, message.kind) == (queue, b"body", BodyKind.TEXT)
    assert text(message)["persistent"] == "true"
    assert "old" not in (message.id, message.token)


def test_a_wildcard_subscription_gets_what_waits(server: Server, connect: Connect) -> None:
    folder, broker = new_queue(), connect(server.url)
    send_all(broker, numbered(f"{folder}.one", 3) + numbered(f"{folder}.two", 3))
    messages = take(broker.subscribe(f"{folder}.>", window=10), 6)
    assert {message.source for message in messages} == {f"{folder}.one", f"{folder}.two"}


@pytest.mark.parametrize("window", [1, 200, 450])
def test_a_wide_window_is_several_subscriptions(server: Server, connect: Connect, window: int) -> None:
    """ActiveMQ gives one subscription no more than 200 messages."""
    queue, broker = new_queue(), connect(server.url)
    broker.subscribe(queue, window=window)
    assert measured(broker, queue).consumers == -(-window // 200)


def test_a_topic_has_no_depth(server: Server, connect: Connect) -> None:
    assert connect(server.url).measure("/topic/events", 0.3) is None
