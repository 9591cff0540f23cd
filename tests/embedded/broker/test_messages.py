"""The MESSAGE frames that follow from a SEND, complete, from the embedded broker and from ActiveMQ."""

from __future__ import annotations

import time

import pytest

from tests.embedded.broker.conftest import Connect
from tests.embedded.broker.raw import frame, frame_of, send, settled, subscribe

PLAIN = {
    "subscription": "s",
    "message-id": "*",
    "timestamp": "*",
    "expires": "0",
    "priority": "4",
}


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ({}, {}),
        ({"persistent": "true"}, {"persistent": "true"}),
        ({"persistent": "false"}, {}),
        ({"persistent": "TRUE"}, {}),
        ({"content-length": "5"}, {"content-length": "5"}),
        ({"content-length": "5", "amq-msg-type": "text"}, {"content-length": "5", "amq-msg-type": "text"}),
        ({"amq-msg-type": "text"}, {"amq-msg-type": "text"}),
        ({"amq-msg-type": "bytes"}, {"amq-msg-type": "bytes", "content-length": "5"}),
        ({"priority": "12"}, {"priority": "9"}),
        ({"priority": "-1"}, {"priority": "0"}),
        ({"expires": "9999999999999"}, {"expires": "9999999999999"}),
        ({"correlation-id": "c", "type": "t", "reply-to": "/queue/r"},) * 2,
        ({"content-type": "application/json", "x-own": "1", "id": "7"},) * 2,
        ({"message-id": "mine", "subscription": "mine", "redelivered": "true", "receipt": ""}, {}),
        ({"JMSXGroupID": "g", "JMSXUserID": "u"}, {}),
        ({"original-destination": "/queue/o"},) * 2,
    ],
)
def test_headers(connect: Connect, queue: str, sent: dict[str, str], shown: dict[str, str]) -> None:
    client = connect()
    destination = {"destination": f"/queue/{queue}"}
    client.done(frame_of("SEND", destination | sent, "hello"))
    client.write(subscribe(f"/queue/{queue}", "auto"))
    assert settled(client.read()) == ("MESSAGE", destination | PLAIN | shown, b"hello")


def test_a_clients_timestamp_is_kept(connect: Connect, queue: str) -> None:
    client = connect()
    client.write(subscribe(f"/queue/{queue}"), send(f"/queue/{queue}", timestamp=123))
    assert client.read()["timestamp"] == "123"


@pytest.mark.parametrize("header", ["priority", "expires", "timestamp"])
def test_a_number_that_is_none_closes(connect: Connect, queue: str, header: str) -> None:
    client = connect()
    client.write(send(f"/queue/{queue}", **{header: "abc"}))
    assert client.closed()


@pytest.mark.parametrize(
    ("version", "shown"),
    [
        ("1.2", (("f\\coo", "a\\nb\\cc\\\\d\\re\\\\tf\\cg\\ch"), ("sp", " lead trail "), ("empty", ""))),
        ("1.1", (("f\\coo", "a\\nb\\cc\\\\d\\\\re\\\\tf\\cg\\ch"), ("sp", " lead trail "), ("empty", ""))),
    ],
)
def test_escapes(connect: Connect, queue: str, version: str, shown: tuple[tuple[str, str], ...]) -> None:
    client = connect(version)
    escaped = {"f\\coo": "a\\nb\\cc\\\\d\\re\\tf:g:h", "sp": " lead trail ", "empty": ""}
    client.done(frame_of("SEND", {"destination": f"/queue/{queue}", **escaped}))
    client.write(subscribe(f"/queue/{queue}"))
    assert set(shown) <= set(client.read().pairs)


def test_the_first_of_duplicate_headers_wins(connect: Connect, queue: str) -> None:
    client = connect()
    client.write(subscribe(f"/queue/{queue}"), f"SEND\ndestination:/queue/{queue}\nfoo:1\nfoo:2\n\nx\0".encode())
    assert [pair for pair in client.read().pairs if pair[0] == "foo"] == [("foo", "1")]


@pytest.mark.parametrize("body", [b"", b"a\0b\n\0", "größe \U0001f600".encode(), b"\xff\xfe\0", bytes(5_000_000)])
def test_bodies_survive_byte_for_byte(connect: Connect, queue: str, body: bytes) -> None:
    client = connect()
    client.done(subscribe(f"/queue/{queue}"))
    client.write(send(f"/queue/{queue}", body, content_length=len(body)))
    got = client.read()
    assert got.body == body
    assert got["content-length"] == str(len(body))


def test_higher_priorities_first_then_the_order_of_arrival(connect: Connect, queue: str) -> None:
    client = connect()
    for number, priority in enumerate((1, 9, 4, 0, 9, 4)):
        client.write(send(f"/queue/{queue}", f"{priority}-{number}", priority=priority))
    client.done(subscribe(f"/queue/{queue}", id="later", prefetch="0"))
    client.write(subscribe(f"/queue/{queue}"))
    assert [message.body for message in client.read_many(6)] == [b"9-1", b"9-4", b"4-2", b"4-5", b"1-0", b"0-3"]


def test_expired_messages_become_dead_letters_or_vanish(connect: Connect, queue: str) -> None:
    client = connect()
    past = int(time.time() * 1000) - 5000
    client.done(
        send(f"/queue/{queue}", "kept", expires=past, foo="1"),
        frame("SEND", "vanishes", destination=f"/queue/{queue}", expires=past),
    )
    client.write(subscribe(f"/queue/{queue}", "auto"), subscribe(f"/queue/DLQ.{queue}", "auto", id="d"))
    command, headers, body = settled(client.read())
    assert headers.pop("dlqDeliveryFailureCause").startswith("java.lang.Throwable: Message Expired. Expiration:")
    # ActiveMQ moves both times of a message that had expired before it came.
    assert abs(int(headers.pop("originalExpiration")) - past) < 60_000
    letter = {
        "destination": f"/queue/DLQ.{queue}",
        "original-destination": f"/queue/{queue}",
        "subscription": "d",
        "persistent": "true",
        "foo": "1",
    }
    assert (command, headers, body) == ("MESSAGE", PLAIN | letter, b"kept")
    assert client.quiet()


def test_a_message_that_expires_with_a_client_is_not_redelivered(connect: Connect, queue: str) -> None:
    client = connect()
    # A busy machine may need a second until the client has it.
    soon = int(time.time() * 1000) + 2000
    client.write(subscribe(f"/queue/{queue}"), send(f"/queue/{queue}", expires=soon))
    client.read()
    while time.time() * 1000 <= soon + 50:
        client.sync()
    client.close()
    other = connect()
    other.write(subscribe(f"/queue/{queue}"), subscribe(f"/queue/DLQ.{queue}", id="d"))
    assert other.read()["subscription"] == "d"


def test_a_header_that_1_0_cannot_write_does_not_break_its_frames(connect_embedded: Connect, queue: str) -> None:
    client, old = connect_embedded(), connect_embedded("1.0")
    old.write(frame("SUBSCRIBE", destination=f"/queue/{queue}"))
    client.write(frame_of("SEND", {"destination": f"/queue/{queue}", "a\\cb": "line\\nbreak"}, "x"))
    got = old.read()
    assert ("a_b", "line break") in got.pairs
    assert got.body == b"x"
