"""Dead letters on RabbitMQ over AMQP: each type of a header into the dead letter and back; to ActiveMQ and back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pika
import pytest

from infertool.brokers.port import Broker, Move
from infertool.deadletters import marks
from infertool.deadletters.record import Cause, dead_letter
from infertool.message import BodyKind, Message, Outgoing, Properties
from tests.brokers.test_header_types import like
from tests.support.activemq import ActiveMQ
from tests.support.brokers import TIMEOUT_S, send_all, take
from tests.support.rabbitmq import RabbitMQ
from tests.support.running import CREDENTIALS, infertool

pytestmark = pytest.mark.rabbitmq

COUNT = 20
CAUSE = Cause("e", "", "infer", "E", "no", 1, "2026-01-01T00:00:01.000Z", "2026-01-01T00:00:00.000Z", "c", "m")
HEADERS = {
    "event_id": "e1", "small": 3, "large": 2**40, "negative": -1, "express": True, "key": b"\0\xff",
    "due": datetime(2026, 1, 31, 3, tzinfo=UTC), "price": Decimal("12.5"), "nothing": None,
    "customer": {"id": 7, "tags": ["a", 1, True], "raw": b"\0", "deep": {"at": datetime(2026, 1, 1, tzinfo=UTC)}},
    "list": [1, "x", None], "text": "7", "umlaut": "ü",
    # Names that are ours, or a property's.
    "replay_count": 7, "dlq_error": ["theirs"], "priority": 3, "type": b"theirs", "timestamp": "then",
}  # fmt: skip


@pytest.fixture
def queue() -> str:
    return f"amqp.{uuid.uuid4().hex[:8]}"


def with_queues(rabbitmq: RabbitMQ, *queues: str) -> None:
    with rabbitmq.pika() as channel:
        for each in queues:
            channel.queue_declare(each, durable=True)


def die(connect: Callable[..., Broker], url: str, queue: str, count: int) -> list[Message]:
    """Have the next events fail, as a consumer does; return them."""
    broker = connect(url)
    subscription = broker.subscribe(queue, window=count)
    events = take(subscription, count)
    atomic = broker.capabilities.atomic_move
    letters = [dead_letter(each, CAUSE, f"{queue}.dead", broker.conventions, atomic=atomic) for each in events]
    subscription.move([Move(each, sent) for each, sent in zip(events, letters, strict=True)], TIMEOUT_S)
    broker.close(TIMEOUT_S)
    return events


def replay(dead: str, url: str, *options: str, code: int = 0) -> dict[str, Any]:
    done = infertool("replay-dlq", dead, "--broker", url, "--yes", "-o", "json", *options, **CREDENTIALS)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return {**(json.loads(done.stdout) if done.stdout.strip() else {}), "said": done.stderr}


def values(headers: dict[str, Any]) -> dict[str, Any]:
    """Return the producer's headers as the usual client reads them."""
    return {name: _plain(headers[name]) for name in HEADERS}


def _plain(value: Any) -> Any:
    """Return a value without what is the usual client's own: its long numbers, and its times without a zone."""
    match value:
        case bool():
            return value
        case int():
            return int(value)
        case datetime():
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
    return value


@pytest.mark.parametrize("ways", [1, 2], ids=["once", "twice"])
def test_every_type_of_a_header_into_the_dead_letter_and_back(
    rabbitmq: RabbitMQ, connect: Callable[..., Broker], queue: str, ways: int
) -> None:
    sent = pika.BasicProperties(
        headers=HEADERS, content_type="application/json", content_encoding="identity", message_id="m-1", priority=7,
        correlation_id="c-1", type="order", expiration="3600000", delivery_mode=2, reply_to="answers",
    )  # fmt: skip
    with_queues(rabbitmq, queue, f"{queue}.dead")
    with rabbitmq.pika() as channel:
        channel.basic_publish("", queue, b'{"n": 1}', sent)
        for way in range(ways):
            [event] = die(connect, rabbitmq.amqp_url, queue, 1)
            assert event.types["small"] == "int"
            summary = replay(f"{queue}.dead", rabbitmq.amqp_url)
            assert (summary["replayed"], summary["losses"]) == (1, {})
            if way < ways - 1:
                continue
            method, found, body = channel.basic_get(queue, auto_ack=True)
            assert method is not None
        assert body == b'{"n": 1}'
        assert like(values(found.headers), HEADERS)
        for name in (
            "content_type",
            "content_encoding",
            "message_id",
            "priority",
            "correlation_id",
            "type",
            "reply_to",
        ):
            assert getattr(found, name) == getattr(sent, name), name
        # As on each broker, a replay does not expire.
        assert (found.expiration, found.headers["original_ttl"]) == (None, "3600000")
        own = "infertool_own_replay_count"
        assert found.headers[own] == str(ways)
        assert channel.basic_get(f"{queue}.dead")[0] is None


def test_types_are_lost_on_the_way_to_activemq_and_named(
    rabbitmq: RabbitMQ, connect: Callable[..., Broker], queue: str, activemq: ActiveMQ
) -> None:
    with_queues(rabbitmq, queue, f"{queue}.dead")
    with rabbitmq.pika() as channel:
        channel.basic_publish("", queue, b"{}", pika.BasicProperties(headers=HEADERS, priority=200, message_id="m-1"))
    die(connect, rabbitmq.amqp_url, queue, 1)
    moved = replay(f"{queue}.dead", rabbitmq.amqp_url, "--to-broker", activemq.url)
    assert "  lost: 1, the type int of the header small: it becomes a text" in moved["said"]
    assert moved["targets"] == {f"/queue/{queue}": 1}
    assert moved["losses"].keys() >= {
        "the type int of the header small: it becomes a text",
        "the type json of the header customer: it becomes a text",
        "the name of the header priority: it becomes infertool_kept_priority",
        "the priority 200: it becomes 9",
    }
    [event] = take(connect(activemq.url).subscribe(f"/queue/{queue}", window=1), 1)
    assert event.headers.items() >= {"small": "3", "key": "AP8=", "text": "7"}.items()
    assert (event.properties.priority, event.properties.message_id) == (9, "m-1")
    assert marks.producers(event.headers)["priority"] == "3"


KNOWN = Properties(
    correlation_id="c:1", content_type="application/json", content_encoding="identity", message_id="theirs",
    type="order", priority=7, reply_to="/queue/answers",
)  # fmt: skip
TEXTS = {"tenant": "acme:1", "umlaut": "ü\n", "empty": "", "replay_count": "7", "dlq_error": "theirs"}


def content(message: Message) -> tuple[Any, ...]:
    """Return what must survive, but for the spelling of the address for replies."""
    headers, known = marks.producers(message.headers), message.properties
    properties = tuple(getattr(known, name) for name in KNOWN.__struct_fields__ if name not in _OTHERS)
    return message.body, message.kind, {name: headers.get(name) for name in (*TEXTS, "event_id")}, properties


_OTHERS = {"reply_to", "timestamp_ms", "expires_ms", "ttl_ms", "delivery_count"}


def test_from_activemq_to_rabbitmq_and_back(
    activemq: ActiveMQ, rabbitmq: RabbitMQ, connect: Callable[..., Broker], queue: str
) -> None:
    here, there = activemq.url, rabbitmq.amqp_url
    with_queues(rabbitmq, queue, f"{queue}.dead")
    sent = [
        Outgoing(f"/queue/{queue}", b'{"n": %d}' % n, kind, {**TEXTS, "event_id": f"e{n}"}, KNOWN)
        for n, kind in zip(range(COUNT), [BodyKind.TEXT, BodyKind.BYTES] * COUNT, strict=False)
    ]
    send_all(connect(here), sent)
    first = die(connect, here, f"/queue/{queue}", COUNT)
    moved = replay(f"{queue}.dead", here, "--to-broker", there, "--batch", "7")
    assert (moved["targets"], moved["losses"]) == ({queue: COUNT}, {})
    second = die(connect, there, queue, COUNT)
    assert [content(each) for each in second] == [content(each) for each in first]
    assert {each.properties.reply_to for each in second} == {"answers"}
    back = replay(f"{queue}.dead", there, "--to-broker", here)
    assert (back["targets"], back["losses"]) == ({f"/queue/{queue}": COUNT}, {})
    third = take(connect(here).subscribe(f"/queue/{queue}", window=COUNT), COUNT)
    assert sorted(map(content, third), key=str) == sorted(map(content, first), key=str)
    assert {each.properties.reply_to for each in third} == {"/queue/answers"}
    own = [marks.ours(each.headers) for each in third]
    assert {(each["replay_count"], each["original_destination"]) for each in own} == {("2", f"/queue/{queue}")}
    assert {each["original_message_id"] for each in own} == {each.id for each in first}


def test_a_queue_that_is_not_there_keeps_the_letter_here(
    activemq: ActiveMQ, rabbitmq: RabbitMQ, connect: Callable[..., Broker], queue: str
) -> None:
    send_all(connect(activemq.url), [Outgoing(f"/queue/{queue}", b"{}", headers={"event_id": "e1"})])
    die(connect, activemq.url, f"/queue/{queue}", 1)
    options = ("--broker", activemq.url, "--to-broker", rabbitmq.amqp_url, "--yes", "-o", "json")
    done = infertool("replay-dlq", f"{queue}.dead", *options, **CREDENTIALS)
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["replayed"], summary["refused"]) == (1, 0, 1)
    assert queue in summary["named"][0]["why"]
    assert len(take(connect(activemq.url).subscribe(f"/queue/{queue}.dead", window=1), 1)) == 1


def test_a_refused_batch_loses_no_letter_and_those_behind_it_are_reached(
    rabbitmq: RabbitMQ, connect: Callable[..., Broker], queue: str
) -> None:
    """Letters that were replayed too often are kept in QUEUE.scan for a while. It is not there, so they do not move."""
    with_queues(rabbitmq, queue, f"{queue}.dead")
    often = {"infertool_replay": "infertool/1", "replay_count": "3", "replay_id": "r-1"}
    sent = [
        Outgoing(queue, b"{}", headers={} if n % 3 == 1 else often, properties=Properties(message_id=f"m{n}"))
        for n in range(15)
    ]
    send_all(connect(rabbitmq.amqp_url), sent)
    die(connect, rabbitmq.amqp_url, queue, 15)
    options = ("--broker", rabbitmq.amqp_url, "--yes", "-o", "json", "--batch", "4")
    done = infertool("replay-dlq", f"{queue}.dead", *options, **CREDENTIALS)
    summary = json.loads(done.stdout)
    assert (summary["refused"], len(summary["named"])) == (10, 10), done.stderr
    assert f"no queue '{queue}.dead.scan'" in summary["named"][0]["why"]
    there = {each.id for each in drained(connect, rabbitmq.amqp_url, queue)}
    here = {each.id for each in drained(connect, rabbitmq.amqp_url, f"{queue}.dead")}
    assert there == {f"m{n}" for n in range(15) if n % 3 == 1}
    assert here == {f"m{n}" for n in range(15) if n % 3 != 1}


def test_a_filter_needs_the_queue_of_those_left_out(
    rabbitmq: RabbitMQ, connect: Callable[..., Broker], queue: str
) -> None:
    with_queues(rabbitmq, queue, f"{queue}.dead")
    send_all(connect(rabbitmq.amqp_url), [Outgoing(queue, b"{}")])
    die(connect, rabbitmq.amqp_url, queue, 1)
    options = ("--broker", rabbitmq.amqp_url, "--stage", "decode", "--yes")
    done = infertool("replay-dlq", f"{queue}.dead", *options, **CREDENTIALS)
    assert done.returncode == 2
    words = ("rabbitmq", "declare", "--queue", f"{queue}.dead.scan", "--dlq", f"{queue}.dead")
    assert f"make it: infertool {' '.join(words)}" in done.stderr
    assert infertool(*words, "--yes", "--broker", rabbitmq.amqp_url, **CREDENTIALS).returncode == 0
    assert infertool("replay-dlq", f"{queue}.dead", *options, **CREDENTIALS).returncode == 4
    assert len(drained(connect, rabbitmq.amqp_url, f"{queue}.dead")) == 1


def test_where_queues_may_be_declared_the_queue_of_those_left_out_is_made(
    rabbitmq: RabbitMQ, connect: Callable[..., Broker], queue: str
) -> None:
    with_queues(rabbitmq, queue, f"{queue}.dead")
    send_all(connect(rabbitmq.amqp_url), [Outgoing(queue, b'{"n": %d}' % n) for n in range(10)])
    die(connect, rabbitmq.amqp_url, queue, 10)
    options = ("--broker", rabbitmq.amqp_url, "--where", "n < 4", "--yes", "-o", "json")
    done = infertool("replay-dlq", f"{queue}.dead", *options, **CREDENTIALS, INFERTOOL_BROKER__DECLARE="true")
    summary = json.loads(done.stdout)
    assert (summary["replayed"], summary["not_matching"], summary["put_back"]) == (4, 6, 6), done.stderr
    assert sorted(each.body for each in drained(connect, rabbitmq.amqp_url, queue)) == [
        b'{"n": %d}' % n for n in range(4)
    ]
    left = [b'{"n": %d}' % n for n in range(4, 10)]
    assert [each.body for each in drained(connect, rabbitmq.amqp_url, f"{queue}.dead")] == left


def drained(connect: Callable[..., Broker], url: str, queue: str) -> list[Message]:
    broker = connect(url)
    depth = broker.measure(queue, TIMEOUT_S)
    assert depth is not None
    assert depth.size is not None
    return take(broker.subscribe(queue, window=100), depth.size)
