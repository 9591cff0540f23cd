"""Frames to messages and messages to frames, answers of the statistics plugin, the agreement on heartbeats."""

from __future__ import annotations

import math

import pytest

from infertool.brokers.port import Depth
from infertool.brokers.stomp.frames import Frame
from infertool.brokers.stomp.messages import check, to_message, to_send
from infertool.brokers.stomp.parser import FrameParser
from infertool.brokers.stomp.statistics import parse_depth
from infertool.brokers.stomp.transport import Heartbeat, agree, wish
from infertool.errors import RefusedError
from infertool.message import BodyKind, Outgoing, Properties
from tests.brokers.conftest import Connect
from tests.support.brokers import Server


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({}, BodyKind.TEXT),
        ({"content-length": "1"}, BodyKind.BYTES),
        ({"content-length": "1", "amq-msg-type": "text"}, BodyKind.TEXT),
        ({"amq-msg-type": "text"}, BodyKind.TEXT),
    ],
)
def test_the_kind_of_a_body(headers: dict[str, str], kind: BodyKind) -> None:
    assert to_message(Frame("MESSAGE", headers), "/queue/q", 3).kind is kind


def test_a_message_without_an_id_gets_one() -> None:
    headers = {"subscription": "s1-1", "ack": "a7"}
    message = to_message(Frame("MESSAGE", headers, b"x"), "/queue/q", 3)
    assert (message.token, message.source, message.epoch) == ("a7", "/queue/q", 3)
    # Another connection's subscription and ack may be the same, and are another event's.
    assert message.id
    assert message.id != to_message(Frame("MESSAGE", headers, b"y"), "/queue/q", 4).id


@pytest.mark.parametrize(
    ("outgoing", "expected"),
    [
        (Outgoing("/queue/q", b"a"), {"destination": "/queue/q", "persistent": "true"}),
        (Outgoing("/queue/q", b"a", properties=Properties(persistent=False)), {"destination": "/queue/q"}),
        (
            Outgoing("/queue/q", b"a", BodyKind.BYTES, properties=Properties(persistent=False)),
            {"destination": "/queue/q", "content-length": "1"},
        ),
        (
            Outgoing("/queue/q", b"a\0", properties=Properties(persistent=False)),
            {"destination": "/queue/q", "content-length": "2", "amq-msg-type": "text"},
        ),
    ],
)
def test_the_headers_of_a_send(outgoing: Outgoing, expected: dict[str, str]) -> None:
    [frame] = FrameParser().feed(to_send(outgoing, {"receipt": "r1"}))
    assert frame == Frame("SEND", {**expected, "receipt": "r1"}, outgoing.body)


@pytest.mark.parametrize(
    "headers", [{f"h{n}": "x" for n in range(995)}, {"h": "x" * 10_240}, {"h": "ü" * 6000}, {"h": ":" * 6000}]
)
def test_what_breaks_the_brokers_limits_is_refused_here(headers: dict[str, str]) -> None:
    with pytest.raises(RefusedError, match="header"):
        check(Outgoing("/queue/q", b"", headers=headers), "stomp://a:1")


def test_what_just_keeps_the_limits_is_taken(server: Server, connect: Connect) -> None:
    from tests.support.brokers import new_queue, send_all, take

    queue, broker = new_queue(), connect(server.url)
    many, long = {f"h{n}": "x" for n in range(994)}, {"h": "ü" * 5119}
    send_all(broker, [Outgoing(queue, b"", headers=many), Outgoing(queue, b"", headers=long)])
    first, second = take(broker.subscribe(queue, window=2), 2)
    assert many.items() <= first.headers.items()
    assert long.items() <= second.headers.items()


@pytest.mark.parametrize(
    ("body", "depth"),
    [
        (b'{"map":{"entry":[{"string":"size","long":12},{"string":"consumerCount","int":1}]}}', Depth(12, consumers=1)),
        (b'{"map":{"entry":{"string":"size","long":0}}}', Depth(0)),
        (b'{"map":{"entry":[{"string":["destinationName","queue:\\/\\/q"]},{"string":"size","long":2},7]}}', Depth(2)),
        (b'{"map":{"entry":[{"string":"size","long":"many"}]}}', None),
        (b'{"map":{"entry":[]}}', None),
        (b'{"map":""}', None),
        (b"[]", None),
        (b"<map/>", None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_statistics(body: bytes, depth: Depth | None) -> None:
    assert parse_depth(body) == depth


@pytest.mark.parametrize(
    ("ours", "answer", "agreed"),
    [
        (10.0, "10000,10000", Heartbeat(beat_s=5.0, silence_s=25.0)),
        (1.0, "5000, 2000", Heartbeat(beat_s=1.0, silence_s=12.5)),
        (1.0, "0,0", Heartbeat(beat_s=None, silence_s=math.inf)),
        (0.0, "5000,5000", Heartbeat(beat_s=None, silence_s=math.inf)),
    ],
)
def test_heartbeats(ours: float, answer: str, agreed: Heartbeat) -> None:
    assert agree(ours, answer) == agreed
    assert wish(1.5) == "1500,1500"


@pytest.mark.parametrize(
    ("headers", "body", "hidden"),
    [
        ({"message-id": "ID:vm-1-2-1:1:1:1:5"}, b"", True),
        ({"message-id": "ID:vm-1-2-1:1:1:1:5"}, b"x", False),
        ({"message-id": "ID:vm-1-2-1:1:1:1:5", "content-length": "0"}, b"", False),
        ({"message-id": "ID:vm-1-2-6:8:-1:1:12"}, b"", False),
        ({"message-id": "ID:vm-1-2-6:8:-1:1:12", "transformation": "jms-map-json"}, b"", True),
        ({"message-id": "order-1"}, b"", True),
    ],
)
def test_a_message_that_may_have_a_body_that_did_not_come(headers: dict[str, str], body: bytes, hidden: bool) -> None:
    assert to_message(Frame("MESSAGE", headers, body), "/queue/q", 1).hides_body is hidden


def test_where_a_message_comes_from_is_what_was_subscribed_to() -> None:
    frame = Frame("MESSAGE", {"message-id": "m", "destination": "/queue/lie"})
    assert to_message(frame, "/queue/q", 1).source == "/queue/q"
    assert to_message(frame, "", 1).source == "/queue/lie"
