"""Messages of other clients: what their properties and bodies are taken for."""

from __future__ import annotations

import pika
import pytest

from infertool.brokers.amqp.messages import to_message
from infertool.errors import RefusedError
from infertool.message import BodyKind, Outgoing, Properties
from tests.brokers.amqp.conftest import Declare
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, take
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq


@pytest.mark.parametrize(
    ("content_type", "body", "kind"),
    [
        (None, b"{}", BodyKind.TEXT),
        (None, "grüße".encode(), BodyKind.TEXT),
        (None, b"\x81\xa1n\x01", BodyKind.BYTES),
        ("application/json", b"{}", BodyKind.TEXT),
        ("application/problem+json; x=y", b"{}", BodyKind.TEXT),
        ("text/plain", b"\xff", BodyKind.TEXT),
        ("application/x; charset=latin-1", b"\xff", BodyKind.TEXT),
        ("application/msgpack", b"a", BodyKind.BYTES),
        ("application/octet-stream", b"text", BodyKind.BYTES),
    ],
)
def test_text_or_bytes(
    rabbitmq: RabbitMQ, declare: Declare, connect: Connect, content_type: str | None, body: bytes, kind: BodyKind
) -> None:
    queue = declare()
    with rabbitmq.pika() as channel:
        channel.basic_publish("", queue, body, pika.BasicProperties(content_type=content_type))
    [message] = take(connect(rabbitmq.amqp_url).subscribe(queue, window=1), 1)
    assert (message.kind, message.body) == (kind, body)


def test_what_pika_sends(rabbitmq: RabbitMQ, declare: Declare, connect: Connect) -> None:
    queue = declare()
    headers = {"n": 7, "yes": True, "raw": b"\xff", "table": {"a": [1, None]}, "none": None, "text": "t"}
    properties = pika.BasicProperties(
        content_type="application/json", content_encoding="gzip", headers=headers, delivery_mode=2, priority=3,
        correlation_id="c", reply_to="answers", expiration="60000", message_id="m", timestamp=1_700_000_000, type="t",
        app_id="app",
    )  # fmt: skip
    with rabbitmq.pika() as channel:
        channel.basic_publish("", queue, b"{}", properties)
    [message] = take(connect(rabbitmq.amqp_url).subscribe(queue, window=1), 1)
    assert message.id == "m"
    assert message.properties == Properties(
        correlation_id="c", reply_to="answers", content_type="application/json", content_encoding="gzip", type="t",
        message_id="m", priority=3, timestamp_ms=1_700_000_000_000, ttl_ms=60000, persistent=True, delivery_count=0,
    )  # fmt: skip
    assert message.headers == {
        "n": "7", "yes": "true", "raw": "/w==", "table": '{"a":[1,null]}', "none": "", "text": "t",
    }  # fmt: skip
    assert message.types == {"n": "int", "yes": "bool", "raw": "bytes", "table": "json", "none": "null"}


def test_a_message_without_an_id_gets_one_of_its_content(
    rabbitmq: RabbitMQ, declare: Declare, connect: Connect
) -> None:
    queue = declare(x_queue_type="quorum")
    with rabbitmq.pika() as channel:
        for body in (b"1", b"1", b"2"):
            channel.basic_publish("", queue, body)
    ids = []
    for _ in range(2):
        broker = connect(rabbitmq.amqp_url)
        ids.append([message.id for message in take(broker.subscribe(queue, window=3), 3)])
        broker.close(TIMEOUT_S)
    assert sorted(ids[0]) == sorted(ids[1])
    assert len(set(ids[0])) == 2


def test_properties_that_cannot_be_read_leave_the_message_unsettled(caplog: pytest.LogCaptureFixture) -> None:
    head = b"\x00\x3c\x00\x00" + b"\x00" * 7 + b"\x02" + b"\x20\x00" + b"\x00\x00\x00\x03\x01nQ"
    first, again = (to_message(head, b"{}", "q", 1, "1-1", redelivered=bool(n)) for n in range(2))
    assert (first.hides_body, first.body, first.id) == (True, b"{}", again.id)
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(
    "outgoing",
    [
        Outgoing("q", b"", headers={"CC": "a"}),
        Outgoing("q", b"", headers={"a" * 256: "1"}),
        Outgoing("q", b"", headers={f"h{n}": "x" * 30_000 for n in range(5)}),
        Outgoing("q", b"", headers={"n": "x"}, types={"n": "int"}),
        Outgoing("q", b"", properties=Properties(correlation_id="c" * 256)),
        Outgoing("q" * 256, b""),
    ],
)
def test_what_amqp_cannot_hold_is_refused_at_once(rabbitmq: RabbitMQ, connect: Connect, outgoing: Outgoing) -> None:
    broker = connect(rabbitmq.amqp_url)
    with pytest.raises(RefusedError) as caught:
        broker.send(outgoing, print)
    assert caught.value.reason
