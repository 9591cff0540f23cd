"""Messages in and out: nothing of a message is changed, and no more of them are held than asked for."""

from __future__ import annotations

from queue import SimpleQueue

import pytest

from infertool.brokers.headers import text
from infertool.brokers.port import Depth
from infertool.errors import RefusedError
from infertool.message import BodyKind, Outgoing, Properties
from tests.support.brokers import NOBODYS, TIMEOUT_S, new_queue, numbered, send_all, take

TEXTS = [
    b"", b"{}", b"nul \0 in it", "grüße 漢字 \U0001f600".encode(), b'{"deep":' * 3000, b"x" * 5_000_000,
]  # fmt: skip
HEADERS = {
    "request_id": "a:b\\c\nd\re", "name": "grüße 漢字 \U0001f600", "empty": "",
    "correlation-id": "c:1", "priority": "7", "type": "event", "reply-to": "/queue/answers",
    "dlq_error": "x" * 1024, "colon:name": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "kind"),
    [(body, BodyKind.TEXT) for body in TEXTS] + [(body, BodyKind.BYTES) for body in (*TEXTS, b"\xff\xfe not utf-8")],
    ids=lambda value: value if isinstance(value, BodyKind) else f"{len(value)}",
)
def test_body_and_kind_survive(server, connect, kind, body):
    queue, broker = new_queue(), connect(server.url)
    send_all(broker, [Outgoing(queue, body, kind)])
    [message] = take(broker.subscribe(queue, window=1), 1)
    assert message.body == body
    assert message.kind is kind
    assert not message.redelivered


def test_headers_survive_and_those_of_an_earlier_delivery_are_not_sent(server, connect):
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


def test_acked_messages_are_gone_and_others_come_again(server, connect):
    queue, first = new_queue(), connect(server.url)
    send_all(first, numbered(queue, 50))
    subscription = first.subscribe(queue, window=50)
    messages = take(subscription, 50)
    assert [message.body for message in messages] == [sent.body for sent in numbered(queue, 50)]
    subscription.ack(messages[:20])
    first.close(TIMEOUT_S)
    assert subscription.receive(1, 5) == []
    second = connect(server.url)
    again = take(second.subscribe(queue, window=50), 30)
    assert [message.body for message in again] == [message.body for message in messages[20:]]
    assert [message.id for message in again] == [message.id for message in messages[20:]]
    assert all(message.redelivered for message in again)


@pytest.mark.parametrize("window", [1, 7, 450])
def test_the_window_is_what_was_asked_for(server, connect, window):
    queue, broker = new_queue(), connect(server.url)
    send_all(broker, numbered(queue, window + 50))
    subscription = broker.subscribe(queue, window=window)
    held = take(subscription, window)
    assert broker.measure(queue, TIMEOUT_S) == Depth(
        size=window + 50, in_flight=window, consumers=-(-window // 200), enqueued=window + 50, dequeued=0
    )
    assert subscription.receive(1, 0.2) == []
    subscription.ack(held)
    for _ in range(50):
        subscription.ack(take(subscription, 1))


def test_depth_is_unknown_where_nobody_tells(server, connect):
    broker = connect(server.url)
    assert broker.measure(new_queue(), 0.3) is None
    assert broker.measure("/topic/events", 0.3) is None


def test_a_wildcard_subscription_gets_what_waits(server, connect):
    folder, broker = new_queue(), connect(server.url)
    send_all(broker, numbered(f"{folder}.one", 3) + numbered(f"{folder}.two", 3))
    messages = take(broker.subscribe(f"{folder}.>", window=10), 6)
    assert {message.source for message in messages} == {f"{folder}.one", f"{folder}.two"}


def test_sends_from_a_callback_do_not_wait_for_the_room_they_make(server, connect):
    queue, broker, answers = new_queue(), connect(server.url), SimpleQueue()
    message = Outgoing(queue, b"{}", properties=Properties(persistent=False))

    def sent(error):
        answers.put(error)
        for _ in range(3):
            broker.send(message, answers.put)

    for _ in range(1500):
        broker.send(message, sent)
    for _ in range(1500 * 4):
        assert answers.get(timeout=TIMEOUT_S) is None


def test_more_sends_than_may_be_unconfirmed(server, connect):
    queue, broker = new_queue(), connect(server.url)
    send_all(broker, numbered(queue, 3000))
    assert broker.measure(queue, TIMEOUT_S).size == 3000


def test_a_refused_send_says_why(server, connect):
    broker, answers = connect(server.url), SimpleQueue()
    broker.send(Outgoing(NOBODYS, b"{}"), answers.put)
    refusal = answers.get(timeout=TIMEOUT_S)
    assert isinstance(refusal, RefusedError)
    assert refusal.address == broker.address
    assert refusal.reason
    assert "\n" not in refusal.reason
    send_all(broker, numbered(new_queue(), 1))
