"""Messages whose frames are not what they seem: what can be read is read to its end; what cannot, blocks nobody."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from infertool.brokers.stomp import reader
from infertool.brokers.stomp.frames import FrameError, Limits
from infertool.brokers.stomp.unreadable import DoubtfulParser, Unreadable
from infertool.message import BodyKind, Outgoing
from infertool.net.connection_state import ConnectionState
from tests.brokers.conftest import Connect
from tests.brokers.test_frames import cut, feed_all
from tests.support.activemq import ActiveMQ
from tests.support.brokers import TIMEOUT_S, Links, measured, new_queue, send_all, take
from tests.support.jms import Jms, produce

MARK = b"0123456789abcdef"
PIECES = [[1], [3], [7], [40], [10_000]]


def doubtful(**limits: int) -> DoubtfulParser:
    return DoubtfulParser(limits=Limits(**limits), mark=MARK)


def delivered(name: str, body: bytes, *lines: bytes) -> bytes:
    head = b"".join(line + b"\n" for line in lines)
    return b"MESSAGE\n%bsubscription:s\nack:a-%b\nmessage-id:%b\n\n%b\0\n" % (head, *[name.encode()] * 2, body)


def read(stream: bytes, sizes: list[int]) -> tuple[list[tuple[str, bytes]], DoubtfulParser]:
    parser = doubtful()
    frames, fault = feed_all(cut(stream, sizes), parser)
    assert fault == ""
    return [(frame.headers.get("message-id", frame.command), frame.body) for frame in frames], parser


BEFORE, BEHIND = delivered("before", b"1"), delivered("behind", b"2") + delivered("last", b"\0\n3", b"content-length:3")
AROUND = [("before", b"1"), ("behind", b"2"), ("last", b"\0\n3")]


@pytest.mark.parametrize("sizes", PIECES, ids=lambda sizes: sizes[0])
@pytest.mark.parametrize(
    "length", ["0", "1", "11", "13", "40", "100", "250", "x", "", "-1", "1.5", "\u0663", "9" * 17, "9" * 5000]
)
def test_a_wrong_content_length_costs_nothing(length: str, sizes: list[int]) -> None:
    """Whatever it says, the text ends at its first NUL; what follows is read, and nothing of it is in the body."""
    body = b'{"n":12345}!'
    odd = delivered("odd", body, b"content-length:" + length.encode())
    answer = b"RECEIPT\nreceipt-id:r1-" + MARK + b"\n\n\0\n"
    found, parser = read(BEFORE + odd + BEHIND + answer, sizes)
    assert found == [AROUND[0], ("odd", body), *AROUND[1:], ("RECEIPT", b"")]
    assert parser.misfits == ["odd"]
    assert not parser.mid_frame


def test_a_wrong_length_leaves_a_text_message() -> None:
    [frame] = doubtful().feed(delivered("odd", b"text", b"content-length:2"))
    assert "content-length" not in frame.headers


@pytest.mark.parametrize("sizes", PIECES, ids=lambda sizes: sizes[0])
def test_a_length_that_is_true_holds_whatever_the_body_is(sizes: list[int]) -> None:
    bodies = [b"\0" * 50, b"\0\nMESSAG", b"\n\n\0", b"RECEIPT\n\n\0\n", b"", b"x" * 3000]
    stream = b"".join(delivered(f"m{n}", body, b"content-length:%d" % len(body)) for n, body in enumerate(bodies))
    found, parser = read(stream, sizes)
    assert [body for _, body in found] == bodies
    assert parser.misfits == []


def test_a_length_that_ends_at_the_end_of_another_frame_is_not_believed() -> None:
    odd = delivered("odd", b"text", b"content-length:%d" % (4 + 2 + len(BEFORE) - 2))
    with pytest.raises(FrameError, match="holds other frames") as caught:
        doubtful().feed(odd + BEFORE)
    assert caught.value.suspect == "odd"


@pytest.mark.parametrize(
    "name", [b"a\nb:x", b"e:f:x", b"n\0l:x", b"a\r\nb:x", b" :x", b":x", b"h\\i:x", b"subscription\n:x"]
)
def test_a_name_that_is_no_name_costs_no_more_than_itself(name: bytes) -> None:
    found, _ = read(BEFORE + delivered("odd", b"body", name) + BEHIND, [10_000])
    assert found == [AROUND[0], ("odd", b"body"), *AROUND[1:]]


@pytest.mark.parametrize(
    ("stream", "reason", "suspect"),
    [
        (delivered("odd", b"x", b"y", b"ack:other"), "two ack headers", "odd"),
        (delivered("odd", b"x", b"c\n\nd:w"), "head is cut", "odd"),
        (delivered("odd", b"x", b"\n:w"), "head is cut", "odd"),
        (delivered("odd", b"x" * 81), "a body of more than", "odd"),
        (delivered("odd", b"x" * 81, b"content-length:21"), "a body of more than", "odd"),
        (delivered(r"odd\c1", b"x", *[b"h:x"] * 30), "more than 20 headers", "odd:1"),
        (delivered("odd", b"") + b"rest of it\0\n", "not a STOMP frame", "odd"),
        (b"garbage\n\n\0", "not a STOMP frame", ""),
        (b"MESSAGE\nno colon\n\n\0", "without a colon", ""),
    ],
)
@pytest.mark.parametrize("sizes", [[1], [10_000]], ids=lambda sizes: sizes[0])
def test_what_cannot_be_read_is_named(stream: bytes, reason: str, suspect: str, sizes: list[int]) -> None:
    parser = doubtful(body=80, headers=20)
    with pytest.raises(FrameError, match=reason) as caught:
        [*map(parser.feed, cut(stream + BEHIND, sizes))]
    assert caught.value.suspect == suspect


def test_what_failed_twice_is_left_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    unreadable = Unreadable("/queue/q")
    unreadable.note("", "lost")
    unreadable.note("it's", "broken")
    assert unreadable.selecting({"selector": "n = 1 OR n = 2"}) == {"selector": "n = 1 OR n = 2"}
    with caplog.at_level(logging.WARNING):
        unreadable.note("it's", "broken")
        unreadable.note("it's", "broken")
    assert unreadable.selecting({}) == {"selector": "JMSMessageID <> 'it''s'"}
    assert unreadable.selecting({"selector": "n = 1 OR n = 2", "x": "y"}) == {
        "selector": "(n = 1 OR n = 2) AND JMSMessageID <> 'it''s'", "x": "y",
    }  # fmt: skip
    [record] = caplog.records
    assert "message it's in /queue/q cannot be read (broken)" in record.getMessage()


def test_what_cannot_be_left_out_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    unreadable = Unreadable("/queue/q")
    with caplog.at_level(logging.WARNING):
        told = [unreadable.note(f"delivery-{n}", "broken", blocks=True) for n in range(4)]
    assert told == [False, True, False, False]
    [record] = caplog.records
    assert "message delivery-1 in /queue/q cannot be read (broken)" in record.getMessage()
    assert "all behind it wait" in record.getMessage()


LYING: dict[str, dict[str, object]] = {
    "short": {"content-length": 5},
    "long": {"content-length": 500},
    "endless": {"content-length": 50_000_000},
    "negative": {"content-length": -1},
    "no-number": {"content-length": "x"},
    "names": {"a\nb": "1", "c:d": "2", "n\0l": "3", "e\r": "4", " ": "5"},
    "headers": {f"h{n}": "v" * 20 for n in range(3000)},
    "long-line": {"h": ":" * 60_000},
    "end": {"browser": "end", "redelivered": "true", "receipt-id": "r1", "transformation": "jms-map-json"},
}


@pytest.mark.activemq
def test_properties_that_look_like_the_brokers_own_headers(activemq: ActiveMQ, connect: Connect, links: Links) -> None:
    queue, broker = new_queue(), connect(activemq.url, links)
    odd = [Jms(queue, f'{{"odd":"{name}"}}', {"event_id": name, **lie}) for name, lie in LYING.items()]
    plain = [Jms(queue, f'{{"n":{n}}}', {"event_id": f"plain-{n}"}) for n in range(len(odd))]
    bodies = {each.properties["event_id"]: str(each.body).encode() for each in odd + plain}
    # The endless one comes last as well: nothing that follows helps to see where it ends.
    produce(activemq, [*(each for pair in zip(odd, plain, strict=True) for each in pair), odd[2]])
    browse = broker.browse(queue, limit=100, timeout_s=TIMEOUT_S)
    assert {message.headers["event_id"]: message.body for message in browse.messages} == bodies
    assert (len(browse.messages), browse.complete) == (len(bodies) + 1, True)
    subscription = broker.subscribe(queue, window=100)
    messages = take(subscription, len(bodies) + 1)
    assert {message.headers["event_id"]: message.body for message in messages} == bodies
    assert {message.kind for message in messages} == {BodyKind.TEXT}
    subscription.ack(messages)
    broker.close(TIMEOUT_S)
    assert [event.state.value for event in links.events] == ["connecting", "connected", "closed"]
    assert measured(connect(activemq.url), queue).size == 0


@pytest.mark.activemq
def test_what_cannot_be_read_is_left_and_blocks_nobody(
    activemq: ActiveMQ, connect: Connect, links: Links, caplog: pytest.LogCaptureFixture
) -> None:
    queue, broker = new_queue(), connect(activemq.url, links, reconnect_max_s=0.2)
    unreadable = {"x\nack": "other", "z\nsubscription": "mine", "c\n\nd": "cut"}
    odd = [Jms(queue, "{}", {name: value, "event_id": value}) for name, value in unreadable.items()]
    plain = [Jms(queue, f'{{"n":{n}}}', {"event_id": f"plain-{n}"}) for n in range(4)]
    produce(activemq, [plain[0], odd[0], plain[1], odd[1], plain[2], odd[2], plain[3]])
    with caplog.at_level(logging.WARNING):
        browse = broker.browse(queue, limit=100, timeout_s=TIMEOUT_S)
        assert {message.headers["event_id"] for message in browse.messages} >= {f"plain-{n}" for n in range(4)}
        assert not browse.complete
        subscription = broker.subscribe(queue, window=100)
        seen: set[str] = set()
        while len(seen) < 4:
            messages = take(subscription, 1)
            seen |= {message.headers["event_id"] for message in messages} & {f"plain-{n}" for n in range(4)}
            subscription.ack([message for message in messages if message.headers["event_id"] in seen])
    told = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert told
    assert all(f"in {queue} cannot be read" in text for text in told)
    broker.close(TIMEOUT_S)
    assert measured(connect(activemq.url), queue).size == len(odd)


# Names and texts that would break a frame if the broker did not escape them.
ESCAPED = {r"x\nack": "other", r"c\n\nd": "cut", r"a\cb": "1", "t": r"line\r\nbreak\cx", "browser": "end"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("artemis", "rabbitmq")]
)
def test_artemis_and_rabbitmq_escape_what_would_break_a_frame(
    request: pytest.FixtureRequest, name: str, connect: Connect, links: Links
) -> None:
    server, queue = request.getfixturevalue(name), new_queue()
    raw = server.raw()
    raw.send(
        queue, [({name: value, "event_id": f"e{n}"}, b"%d" % n) for n, (name, value) in enumerate(ESCAPED.items())]
    )
    raw.close()
    subscription = connect(server.url, links).subscribe(queue, window=10)
    messages = take(subscription, len(ESCAPED))
    assert [message.body for message in messages] == [b"%d" % n for n in range(len(ESCAPED))]
    found = {name: value for message in messages for name, value in message.headers.items()}
    assert found == {
        "x\nack": "other", "c\n\nd": "cut", "a:b": "1", "t": "line\r\nbreak:x", "browser": "end", "event_id": "e4",
    }  # fmt: skip
    subscription.ack(messages)
    assert links.of(ConnectionState.LOST) == []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("activemq6", "artemis", "rabbitmq")]
)
def test_what_is_too_large_is_left_out_or_told(
    request: pytest.FixtureRequest,
    name: str,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the broker cannot leave a message out, those behind it wait, and a warning says so."""
    leaves_out = name == "activemq6"
    # Artemis moves what it has delivered ten times, also what waits behind the large message, unless it is told not to.
    queue = new_queue().replace("/queue/", "/queue/unlimited.")
    server, links = request.getfixturevalue(name), Links()
    monkeypatch.setattr(reader, "_FROM_BROKER", Limits(body=1000))
    broker: Any = connect(server.url, links, reconnect_max_s=0.2)
    send_all(broker, [Outgoing(queue, body, BodyKind.BYTES) for body in (b"x" * 2000, b"behind")])
    with caplog.at_level(logging.WARNING):
        subscription = broker.subscribe(queue, window=10)
        # The second failure is told; without the message there is no third.
        links.wait_for(ConnectionState.CONNECTED, 3 if leaves_out else 5)
        told = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert len(told) == 1
    assert ("all others are taken" if leaves_out else "all behind it wait") in told[0]
    monkeypatch.undo()
    seen: set[bytes] = set()
    while b"behind" not in seen:
        messages = take(subscription, 1)
        seen |= {message.body for message in messages}
        subscription.ack(messages)
