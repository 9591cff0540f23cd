"""Transactions: the same conversations with the embedded broker and with ActiveMQ."""

from __future__ import annotations

from tests.embedded.broker.conftest import Connect
from tests.embedded.broker.raw import Raw, frame, send, subscribe
from tests.embedded.broker.test_settling import bodies, everything, filled, gone


def begun(connect: Connect, queue: str, **subscription: str) -> tuple[Raw, list[str]]:
    """Return a client in a transaction `t`, and the ack keys of the three messages it holds."""
    client = filled(connect, queue, 3)
    client.write(subscribe(f"/queue/{queue}", **subscription), frame("BEGIN", transaction="t"))
    return client, [message["ack"] for message in client.read_many(3)]


def test_a_move_shows_at_its_commit_and_not_before(connect: Connect, queue: str) -> None:
    client, keys = begun(connect, queue)
    watcher = connect()
    watcher.done(subscribe(f"/queue/{queue}.to"))
    moved = send(f"/queue/{queue}.to", "moved", transaction="t", receipt="s")
    assert client.ask(moved)["receipt-id"] == "s"
    client.write(frame("ACK", id=keys[0], transaction="t", receipt="a"))
    assert client.read()["receipt-id"] == "a"
    assert watcher.quiet()
    assert client.ask(frame("COMMIT", transaction="t", receipt="c"))["receipt-id"] == "c"
    assert watcher.read().body == b"moved"
    gone(client)
    assert bodies(everything(connect, queue)) == ["m1", "m2"]


def test_a_cumulative_ack_in_a_transaction_takes_all_before_it(connect: Connect, queue: str) -> None:
    client, keys = begun(connect, queue, ack="client")
    client.write(frame("ACK", id=keys[1], transaction="t"), frame("COMMIT", transaction="t", receipt="c"))
    assert client.read()["receipt-id"] == "c"
    gone(client)
    assert bodies(everything(connect, queue)) == ["m2"]


def test_after_an_abort_messages_stay_with_their_subscription(connect: Connect, queue: str) -> None:
    client, keys = begun(connect, queue)
    client.write(frame("ACK", id=keys[0], transaction="t"), frame("ACK", id=keys[1], transaction="t"))
    client.write(send(f"/queue/{queue}.to", "never", transaction="t"))
    assert client.ask(frame("ABORT", transaction="t", receipt="a"))["receipt-id"] == "a"
    assert client.quiet()
    assert client.ask(frame("ACK", id=keys[1], receipt="still"))["receipt-id"] == "still"
    client.write(frame("UNSUBSCRIBE", id="s"), subscribe(f"/queue/{queue}", id="again"))
    got = client.read_many(2)
    assert [(message.body, message.headers.get("redelivered")) for message in got] == [
        (b"m0", "true"),
        (b"m2", "true"),
    ]
    assert everything(connect, f"{queue}.to") == []


def test_an_abort_keeps_the_order_of_delivery_for_cumulative_acks(connect: Connect, queue: str) -> None:
    client, keys = begun(connect, queue, ack="client")
    client.write(frame("ACK", id=keys[1], transaction="t"), frame("ABORT", transaction="t"))
    client.done(frame("ACK", id=keys[0]))
    gone(client)
    assert bodies(everything(connect, queue)) == ["m1", "m2"]


def test_a_lost_connection_aborts(connect: Connect, queue: str) -> None:
    client, keys = begun(connect, queue)
    client.done(frame("ACK", id=keys[0], transaction="t"), send(f"/queue/{queue}.to", "never", transaction="t"))
    client.close()
    other = connect()
    other.write(subscribe(f"/queue/{queue}"))
    # ActiveMQ may put what was acked in the transaction behind the rest.
    assert sorted(bodies(other.read_many(3))) == ["m0", "m1", "m2"]
    assert everything(connect, f"{queue}.to") == []


def test_acks_in_a_transaction_leave_room_in_the_window(connect: Connect, queue: str) -> None:
    client = filled(connect, queue, 3)
    client.write(subscribe(f"/queue/{queue}", prefetch="1"), frame("BEGIN", transaction="t"))
    for expected in (b"m0", b"m1", b"m2"):
        message = client.read()
        assert message.body == expected
        client.write(frame("ACK", id=message["ack"], transaction="t"))
    client.done(frame("COMMIT", transaction="t"))
    gone(client)
    assert everything(connect, queue) == []


def test_a_nack_in_a_transaction_is_refused_and_the_message_stays(connect: Connect, queue: str) -> None:
    client, keys = begun(connect, queue)
    client.write(send(f"/queue/{queue}.to", "sent", transaction="t"))
    refused = client.ask(frame("NACK", id=keys[1], transaction="t", receipt="n"))
    assert (refused.command, refused["receipt-id"]) == ("ERROR", "n")
    assert refused["message"].startswith("Poison ack cannot be transacted")
    assert client.ask(frame("COMMIT", transaction="t", receipt="c"))["receipt-id"] == "c"
    gone(client)
    assert bodies(everything(connect, queue)) == ["m0", "m1", "m2"]
    assert everything(connect, f"DLQ.{queue}") == []
    assert bodies(everything(connect, f"{queue}.to")) == ["sent"]


def test_a_transaction_ends_once(connect: Connect, queue: str) -> None:
    client = connect()
    client.done(frame("BEGIN", transaction="t"), frame("COMMIT", transaction="t"))
    for deed in ("COMMIT", "ABORT", "SEND"):
        error = client.ask(frame(deed, transaction="t", destination=f"/queue/{queue}", receipt="r"))
        assert (error.command, error["message"], error["receipt-id"]) == ("ERROR", "Invalid transaction id: t", "r")
    assert client.ask(frame("BEGIN", transaction="t", receipt="again")).command == "RECEIPT"
