"""Mistakes of a client, and the answers of both brokers. ActiveMQ's bodies are stack traces, ours are not."""

from __future__ import annotations

import pytest

from tests.embedded.broker.conftest import Connect, Embedded
from tests.embedded.broker.raw import PATIENCE_S, Got, Raw, frame, send, subscribe

CREDENTIALS = {"login": "admin", "passcode": "admin"}


def connected(got: Got, version: str, beats: str) -> None:
    assert got.command == "CONNECTED"
    assert got["session"]
    assert got["server"]
    assert (got["version"], got["heart-beat"]) == (version, beats)


@pytest.mark.parametrize(
    ("accepted", "version"),
    [("1.0", "1.0"), ("1.1", "1.1"), ("1.2", "1.2"), ("1.0,1.1,1.2", "1.2"), ("1.1,1.3", "1.1"), (None, "1.0")],
)
@pytest.mark.parametrize("command", ["CONNECT", "STOMP"])
def test_the_highest_common_version_is_agreed(port: int, command: str, accepted: str | None, version: str) -> None:
    client = Raw(port)
    versions = {} if accepted is None else {"accept_version": accepted}
    client.write(frame(command, **CREDENTIALS, **versions, heart_beat="30000,60000"))
    connected(client.read(), version, "60000,30000")
    client.close()


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"accept_version": "3.0"}, "Invalid Protocol version[3.0], supported versions are: [1.2, 1.1, 1.0]"),
        ({"accept_version": ""}, "Invalid Protocol version[], supported versions are: [1.2, 1.1, 1.0]"),
        ({"accept_version": "1.2", "heart_beat": "abc"}, "Invalid heart-beat header:abc"),
    ],
)
def test_a_refused_connect_closes(port: int, headers: dict[str, str], message: str) -> None:
    client = Raw(port)
    client.write(frame("CONNECT", **CREDENTIALS, **headers))
    error = client.read()
    # Before a version is agreed ActiveMQ does not escape: see the colon either way.
    assert (error.command, error["message"]) == ("ERROR", message)
    assert client.closed()


def test_connect_gives_a_receipt_within_connected(port: int) -> None:
    client = Raw(port)
    client.write(frame("CONNECT", **CREDENTIALS, accept_version="1.2", receipt="r", client_id="me"))
    got = client.read()
    assert (got["receipt-id"], got["response-id"], got["session"]) == ("r", "r", "me")
    client.close()


def test_a_client_id_cannot_break_connected(embedded: Embedded) -> None:
    client = Raw(embedded.port)
    assert client.connect(client_id="a\rb")["session"] == "a b"
    client.close()


def test_frames_before_connect_are_refused(port: int) -> None:
    client = Raw(port)
    assert client.ask(send("/queue/early"))["message"] == "Not connected."
    assert client.connect().command == "CONNECTED"
    client.close()


MISTAKES = {
    "a second connect": (frame("CONNECT", accept_version="1.2", **CREDENTIALS), "Already connected."),
    "send without destination": (frame("SEND"), "SEND received without a Destination specified!"),
    "send in no transaction": (send("/queue/t0.mistakes", transaction="no"), "Invalid transaction id: no"),
    "subscribe without destination": (frame("SUBSCRIBE", id="1"), "Invalid empty or 'null' Destination header"),
    "subscribe without id": (
        frame("SUBSCRIBE", destination="/queue/t0.mistakes"),
        "SUBSCRIBE received without a subscription id!",
    ),
    "unsubscribe without id": (frame("UNSUBSCRIBE"), "UNSUBSCRIBE received without a subscription id!"),
    "unsubscribe an unknown one": (frame("UNSUBSCRIBE", id="no"), "No subscription matched."),
    "ack without id": (frame("ACK"), "ACK received without a ack id for acknowledge!"),
    "ack an unknown one": (frame("ACK", id="no"), "Unexpected ACK received for message-id [null]"),
    "ack another's": (frame("ACK", id="ID\\cx\\c1\\c1"), "Unexpected ACK received for message-id [null]"),
    "nack an unknown one": (frame("NACK", id="no"), "Unexpected NACK received for message-id [null]"),
    "begin without a name": (frame("BEGIN"), "Must specify the transaction you are beginning"),
    "commit without a name": (frame("COMMIT"), "Must specify the transaction you are committing"),
    "abort an unknown one": (frame("ABORT", transaction="no"), "Invalid transaction id: no"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_an_error_and_the_connection_stays_usable(connect: Connect, queue: str, mistake: str) -> None:
    data, message = MISTAKES[mistake]
    client = connect()
    error = client.ask(data.replace(b"\n\n", b"\nreceipt:r\n\n", 1))
    assert (error.command, error["message"], error["content-type"]) == ("ERROR", message, "text/plain")
    if mistake != "a second connect":
        assert error["receipt-id"] == "r"
    client.write(subscribe(f"/queue/{queue}"), send(f"/queue/{queue}", "still here"))
    assert client.read().body == b"still here"


def test_a_transaction_begins_once(connect: Connect) -> None:
    client = connect()
    client.write(frame("BEGIN", transaction="t"))
    assert client.ask(frame("BEGIN", transaction="t"))["message"] == "The transaction was already started: t"


def test_versions_1_0_and_1_1_name_the_message(connect: Connect) -> None:
    unknown = frame("ACK", message_id="q", subscription="1")
    assert connect("1.1").ask(unknown)["message"] == "Unexpected ACK received for message-id [q]"
    assert connect("1.0").ask(frame("ACK", message_id="q"))["message"] == "Unexpected ACK received for message-id [q]"
    missing = connect("1.1").ask(frame("ACK", message_id="q"))
    assert missing["message"] == "ACK received without a subscription id for acknowledge!"
    assert connect("1.0").ask(frame("NACK", message_id="q"))["message"].startswith("NACK received but")


FATAL = {
    "an unknown command": frame("FOO"),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\0",
    "a content-length that is no number": b"SEND\ndestination:/queue/a\ncontent-length:abc\n\nx\0",
    "a body longer than announced": b"SEND\ndestination:/queue/a\ncontent-length:2\n\nabcdef\0",
    "a body over 100 MiB": b"SEND\ndestination:/queue/a\ncontent-length:104857700\n\nx",
    "a header line over 10 KiB": b"SEND\ndestination:/queue/a\nh:" + b"x" * 11_000 + b"\n\nx\0",
    "more than 1000 headers": b"SEND\n" + b"".join(b"h%d:x\n" % n for n in range(1200)) + b"\nx\0",
    "an endless command": b"A" * 20_000,
}


@pytest.mark.parametrize("fault", FATAL)
def test_what_is_no_frame_gets_an_error_and_the_end(connect: Connect, queue: str, fault: str) -> None:
    victim, neighbour = connect(), connect()
    victim.write(FATAL[fault])
    assert victim.read().command == "ERROR"
    assert victim.closed()
    neighbour.write(subscribe(f"/queue/{queue}"), send(f"/queue/{queue}", "undisturbed"))
    assert neighbour.read(PATIENCE_S).body == b"undisturbed"


def test_receipts_come_for_every_frame_and_in_order(connect: Connect, queue: str) -> None:
    client = connect()
    client.write(
        frame("BEGIN", transaction="t", receipt="0"),
        send(f"/queue/{queue}.other", transaction="t", receipt="1"),
        frame("COMMIT", transaction="t", receipt="2"),
        subscribe(f"/queue/{queue}", receipt="3"),
        frame("UNSUBSCRIBE", id="s", receipt="4"),
        frame("DISCONNECT", receipt="5 \\c"),
    )
    assert [got["receipt-id"] for got in client.read_many(6)] == ["0", "1", "2", "3", "4", "5 :"]
    assert client.closed()


def test_two_subscriptions_with_one_id(connect: Connect, queue: str) -> None:
    client = connect()
    client.done(subscribe(f"/queue/{queue}.a", "auto"), subscribe(f"/queue/{queue}.b", "auto"))
    assert client.ask(frame("UNSUBSCRIBE", id="s", receipt="u")).command == "RECEIPT"
    assert client.ask(frame("UNSUBSCRIBE", id="s")).command == "ERROR"
    client.write(send(f"/queue/{queue}.b", "ended"), send(f"/queue/{queue}.a", "never ends"))
    assert client.read().body == b"never ends"
