"""Several destinations in one header: with the embedded broker and with ActiveMQ."""

from __future__ import annotations

from tests.embedded.broker.conftest import Connect
from tests.embedded.broker.raw import frame, send, settled, subscribe
from tests.embedded.broker.test_settling import bodies, everything


def test_a_send_to_several_places_is_one_message_in_each(connect: Connect, queue: str) -> None:
    client, listener = connect(), connect()
    listener.done(subscribe(f"/topic/{queue}", "auto"))
    client.done(send(f"/queue/{queue}.1,/topic/{queue},{queue}.2", "news", extra="kept"))
    client.write(subscribe(f"/queue/{queue}.1", id="s1"), subscribe(f"/queue/{queue}.2", id="s2"))
    got = [listener.read(), *sorted(client.read_many(2), key=lambda each: each["destination"])]
    assert len({each["message-id"] for each in got}) == 1
    assert [each["destination"] for each in got] == [f"/topic/{queue}", f"/queue/{queue}.1", f"/queue/{queue}.2"]
    origin = f"/queue/{queue}.1,topic://{queue},queue://{queue}.2"
    for each in got:
        _, headers, body = settled(each)
        assert (body, headers["extra"], headers["original-destination"]) == (b"news", "kept", origin)
    client.done(frame("ACK", id=got[1]["ack"]))
    assert everything(connect, f"{queue}.1") == []


def test_a_place_that_is_named_twice_gets_one(connect: Connect, queue: str) -> None:
    client = connect()
    client.done(send(f"/queue/{queue},/queue/{queue}", "once"), send(f"/queue/{queue},", "comma"))
    assert bodies(everything(connect, queue)) == ["once", "comma"]


def test_in_a_transaction_none_has_it_before_the_commit(connect: Connect, queue: str) -> None:
    client = connect()
    client.done(subscribe(f"/queue/{queue}.*", "auto"))
    client.done(frame("BEGIN", transaction="t"), send(f"/queue/{queue}.1,/queue/{queue}.2", transaction="t"))
    assert client.quiet()
    client.write(frame("COMMIT", transaction="t"))
    assert {got["destination"] for got in client.read_many(2)} == {f"/queue/{queue}.1", f"/queue/{queue}.2"}


def test_a_subscription_to_several_places(connect: Connect, queue: str) -> None:
    client = connect()
    client.done(subscribe(f"/queue/{queue}.1,/queue/{queue}.2", "auto"))
    client.write(*(send(f"/queue/{queue}.{n}", str(n)) for n in (1, 2, 3)))
    assert sorted(bodies(client.read_many(2))) == ["1", "2"]
    assert client.quiet()
    client.done(frame("UNSUBSCRIBE", id="s"), send(f"/queue/{queue}.1", "later"))
    assert client.quiet()
