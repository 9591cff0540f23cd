"""Durable topic subscriptions: with the embedded broker and with ActiveMQ."""

from __future__ import annotations

from tests.embedded.broker.conftest import Connect
from tests.embedded.broker.raw import Raw, frame, frame_of, send, subscribe
from tests.embedded.broker.test_settling import bodies

NAME = "activemq.subscriptionName"


def durably(queue: str, *, name: str = "mine", **headers: str) -> bytes:
    return subscribe(f"/topic/{queue}", **{NAME: name, **headers})


def leave(client: Raw) -> None:
    client.write(frame("DISCONNECT"))
    assert client.closed()


def test_what_is_published_while_the_client_is_away_waits(connect: Connect, queue: str) -> None:
    client, producer = connect(client_id=f"c-{queue}"), connect()
    client.done(durably(queue))
    producer.done(send(f"/topic/{queue}", "acked"), send(f"/topic/{queue}", "not acked"))
    first, _ = client.read_many(2)
    client.done(frame("ACK", id=first["ack"]))
    leave(client)
    producer.done(send(f"/topic/{queue}", "away"))
    client = connect(client_id=f"c-{queue}")
    client.write(durably(queue, receipt="r"))
    got = client.read_many(3)
    assert {each.command for each in got} == {"RECEIPT", "MESSAGE"}
    messages = [each for each in got if each.command == "MESSAGE"]
    assert sorted(bodies(messages)) == ["away", "not acked"]


def test_it_ends_when_it_is_unsubscribed_by_name_and_not_before(connect: Connect, queue: str) -> None:
    client, producer = connect(client_id=f"c-{queue}"), connect()
    client.done(durably(queue, ack="auto"), frame("UNSUBSCRIBE", id="s"))
    producer.done(send(f"/topic/{queue}", "kept"))
    client.write(durably(queue, ack="auto"))
    assert client.read().body == b"kept"
    client.done(frame("UNSUBSCRIBE", id="s"), frame_of("UNSUBSCRIBE", {"id": "s", NAME: "mine"}))
    producer.done(send(f"/topic/{queue}", "gone"))
    client.done(durably(queue, ack="auto"))
    assert client.quiet()


def test_it_is_one_clients_and_used_once(connect: Connect, queue: str) -> None:
    client, other, producer = connect(client_id=f"c-{queue}"), connect(client_id=f"d-{queue}"), connect()
    client.done(durably(queue))
    refused = client.ask(durably(queue, id="again", receipt="r"))
    assert (refused.command, refused["receipt-id"]) == ("ERROR", "r")
    assert refused["message"] == f"Durable consumer is in use for client: c-{queue} and subscriptionName: mine"
    other.done(durably(queue, ack="auto"))
    producer.done(send(f"/topic/{queue}", "for both"))
    assert client.read().body == other.read().body == b"for both"


def test_another_selector_makes_it_another_subscription(connect: Connect, queue: str) -> None:
    client, producer = connect(client_id=f"c-{queue}"), connect()
    client.done(durably(queue, ack="auto", selector="n = 1"), frame("UNSUBSCRIBE", id="s"))
    producer.done(send(f"/topic/{queue}", "one", n=1), send(f"/topic/{queue}", "two", n=2))
    client.write(durably(queue, ack="auto", selector="n = 1"))
    assert client.read().body == b"one"
    client.done(frame("UNSUBSCRIBE", id="s"))
    producer.done(send(f"/topic/{queue}", "one", n=1))
    client.done(durably(queue, ack="auto", selector="n = 2"))
    assert client.quiet()


def test_a_queue_has_none(connect: Connect, queue: str) -> None:
    refused = connect(client_id=f"c-{queue}").ask(subscribe(f"/queue/{queue}", **{NAME: "mine", "receipt": "r"}))
    assert refused["message"] == "Invalid Subscription: cannot durably subscribe to a Queue destination!"
