"""ACK, NACK, redelivery and windows: the same conversations with the embedded broker and with ActiveMQ."""

from __future__ import annotations

from tests.embedded.broker.conftest import Connect
from tests.embedded.broker.raw import Got, Raw, frame, send, settled, subscribe


def bodies(got: list[Got]) -> list[str]:
    return [message.body.decode() for message in got]


def filled(connect: Connect, queue: str, number: int) -> Raw:
    """Put m0, m1, ... into the queue, and return a new client for it."""
    producer = connect()
    producer.done(*(send(f"/queue/{queue}", f"m{n}") for n in range(number)))
    producer.close()
    return connect()


def everything(connect: Connect, queue: str) -> list[Got]:
    """Return what a new client finds in the queue, without keeping it."""
    client = connect()
    client.write(subscribe(f"/queue/{queue}", "auto", id="b", browser="true"))
    found = []
    while "browser" not in (got := client.read()).headers:
        found.append(got)
    client.close()
    return found


def gone(client: Raw) -> None:
    """Disconnect, and wait until the server has given back what the client held."""
    client.write(frame("DISCONNECT", receipt="bye"))
    assert client.closed()
    client.close()


def test_an_individual_ack_settles_one_message(connect: Connect, queue: str) -> None:
    client = filled(connect, queue, 3)
    client.write(subscribe(f"/queue/{queue}"))
    second = client.read_many(3)[1]
    assert client.ask(frame("ACK", id=second["ack"], receipt="r")).headers == {"receipt-id": "r"}
    gone(client)
    assert bodies(everything(connect, queue)) == ["m0", "m2"]


def test_a_client_ack_settles_all_before_it(connect: Connect, queue: str) -> None:
    client = filled(connect, queue, 4)
    client.write(subscribe(f"/queue/{queue}", "client"))
    got = client.read_many(4)
    client.done(frame("ACK", id=got[2]["ack"]))
    again = client.ask(frame("ACK", id=got[1]["ack"], receipt="r"))
    assert (again.command, again["receipt-id"]) == ("ERROR", "r")
    gone(client)
    assert bodies(everything(connect, queue)) == ["m3"]


def test_a_nack_moves_a_persistent_message_to_its_dead_letters(connect: Connect, queue: str) -> None:
    client = connect()
    far_future = 9_999_999_999_999
    client.write(
        send(f"/queue/{queue}", "bad", foo="1", priority=7, expires=far_future, correlation_id="c", content_length=3),
        subscribe(f"/queue/{queue}"),
        subscribe(f"/queue/DLQ.{queue}", id="d"),
    )
    original = client.read()
    client.write(frame("NACK", id=original["ack"]))
    letter = client.read()
    assert settled(letter) == (
        "MESSAGE",
        {
            "destination": f"/queue/DLQ.{queue}",
            "original-destination": f"/queue/{queue}",
            "originalExpiration": str(far_future),
            "expires": "0",
            "subscription": "d",
            "ack": "*",
            "message-id": "*",
            "timestamp": "*",
            "priority": "7",
            "persistent": "true",
            "content-length": "3",
            "correlation-id": "c",
            "foo": "1",
        },
        b"bad",
    )
    assert (letter["message-id"], letter["timestamp"]) == (original["message-id"], original["timestamp"])


def test_a_nack_with_client_ack_is_for_one_message_only(connect: Connect, queue: str) -> None:
    client = filled(connect, queue, 3)
    client.write(subscribe(f"/queue/{queue}", "client"))
    client.done(frame("NACK", id=client.read_many(3)[1]["ack"]))
    gone(client)
    assert bodies(everything(connect, queue)) == ["m0", "m2"]
    assert bodies(everything(connect, f"DLQ.{queue}")) == ["m1"]


def test_a_nack_drops_what_is_not_persistent(connect: Connect, queue: str) -> None:
    client = connect()
    client.write(frame("SEND", "x", destination=f"/queue/{queue}"), subscribe(f"/queue/{queue}"))
    client.done(frame("NACK", id=client.read()["ack"]))
    gone(client)
    assert everything(connect, queue) == []
    assert everything(connect, f"DLQ.{queue}") == []


def test_a_nack_in_the_dead_letter_queue_destroys(connect: Connect, queue: str) -> None:
    client = filled(connect, queue, 1)
    client.write(subscribe(f"/queue/{queue}"), subscribe(f"/queue/DLQ.{queue}", id="d"))
    client.write(frame("NACK", id=client.read()["ack"]))
    client.done(frame("NACK", id=client.read()["ack"]))
    gone(client)
    assert everything(connect, f"DLQ.{queue}") == []
    assert everything(connect, f"DLQ.DLQ.{queue}") == []


def test_what_a_lost_client_held_comes_back_first_and_in_order(connect: Connect, queue: str) -> None:
    first = filled(connect, queue, 6)
    first.write(subscribe(f"/queue/{queue}", prefetch="4"))
    first.done(frame("ACK", id=first.read_many(4)[1]["ack"]))
    gone(first)
    second = connect()
    second.write(subscribe(f"/queue/{queue}"))
    got = second.read_many(5)
    assert bodies(got) == ["m0", "m2", "m3", "m4", "m5"]
    assert [message.headers.get("redelivered") for message in got[:2]] == ["true", "true"]
    assert "redelivered" not in got[-1].headers


def test_redelivery_has_no_limit(connect: Connect, queue: str) -> None:
    for round_number in range(8):
        client = filled(connect, queue, 1) if round_number == 0 else connect()
        client.write(subscribe(f"/queue/{queue}"))
        message = client.read()
        assert message.headers.get("redelivered") == ("true" if round_number else None)
        gone(client)


def test_an_ack_after_unsubscribe_is_receipted_and_does_nothing(connect: Connect, queue: str) -> None:
    client = filled(connect, queue, 1)
    client.write(subscribe(f"/queue/{queue}"))
    key = client.read()["ack"]
    assert client.ask(frame("UNSUBSCRIBE", id="s", receipt="u")).command == "RECEIPT"
    assert client.ask(frame("ACK", id=key, receipt="a")).command == "RECEIPT"
    client.write(subscribe(f"/queue/{queue}"))
    assert client.read()["redelivered"] == "true"


def test_the_window_opens_one_message_an_ack(connect: Connect, queue: str) -> None:
    client = filled(connect, queue, 4)
    client.write(subscribe(f"/queue/{queue}", prefetch="2"))
    first, second = client.read_many(2)
    assert (first.body, second.body) == (b"m0", b"m1")
    assert client.quiet()
    client.write(frame("ACK", id=second["ack"]))
    assert client.read().body == b"m2"
    assert client.quiet()


def test_consumers_take_turns(connect: Connect, queue: str) -> None:
    one, two = connect(), connect()
    for client in (one, two):
        client.done(subscribe(f"/queue/{queue}"))
    filled(connect, queue, 6)
    assert sorted(bodies([*one.read_many(3), *two.read_many(3)])) == ["m0", "m1", "m2", "m3", "m4", "m5"]


def test_a_full_consumer_does_not_hold_up_the_other(connect: Connect, queue: str) -> None:
    one, two = connect(), connect()
    one.done(subscribe(f"/queue/{queue}", prefetch="1"))
    two.done(subscribe(f"/queue/{queue}"))
    filled(connect, queue, 5)
    assert sorted(bodies([one.read(), *two.read_many(4)])) == ["m0", "m1", "m2", "m3", "m4"]


def test_version_1_1_acks_by_message_id_and_subscription(connect: Connect, queue: str) -> None:
    filled(connect, queue, 2)
    client = connect("1.1")
    client.write(subscribe(f"/queue/{queue}"))
    first, _ = client.read_many(2)
    assert "ack" not in first.headers
    client.write(frame("ACK", message_id=first["message-id"].replace(":", "\\c"), subscription="s", receipt="r"))
    assert client.read().command == "RECEIPT"
    gone(client)
    assert bodies(everything(connect, queue)) == ["m1"]


def test_version_1_0_acks_by_message_id_alone(connect: Connect, queue: str) -> None:
    filled(connect, queue, 2)
    client = connect("1.0")
    client.write(frame("SUBSCRIBE", destination=f"/queue/{queue}", ack="client-individual"))
    first, _ = client.read_many(2)
    assert "subscription" not in first.headers
    assert client.ask(frame("ACK", message_id=dict(first.pairs)["message-id"], receipt="r")).command == "RECEIPT"
    assert client.ask(frame("UNSUBSCRIBE", destination=f"/queue/{queue}", receipt="u")).command == "RECEIPT"
    gone(client)
    assert bodies(everything(connect, queue)) == ["m1"]
