"""The adapter on ActiveMQ 6, Artemis and RabbitMQ: what each can do works, and the rest is refused in words."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infertool.brokers.port import Broker, Browsing, Move, Subscription
from infertool.deadletters.replay.companions import BusyError, locked
from infertool.errors import MoveRefusedError, OccupiedError, RefusedError
from infertool.message import BodyKind, Message, Outgoing, Properties
from infertool.net.connection_state import ConnectionState
from infertool.secret import Secret
from tests.support.artemis import Artemis
from tests.support.brokers import TIMEOUT_S, Links, new_queue, numbered, send_all, take
from tests.support.proxy import Proxy

SERVERS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("activemq6", "artemis", "rabbitmq")]
Connect = Callable[..., Broker]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def bodies(messages: list[Any]) -> list[bytes]:
    return [message.body for message in messages]


def test_what_is_sent_comes_as_it_was(server: Any, connect: Connect) -> None:
    broker, queue = connect(server.url), new_queue()
    properties = Properties(correlation_id="c 1", type="T", priority=4, persistent=True)
    headers = {"event_id": "e:1", "umlaut": "ü\n", "empty": ""}
    send_all(broker, [Outgoing(queue, b'{"n": 1}', BodyKind.TEXT, headers, properties)])
    send_all(broker, [Outgoing(queue, b"\0\1", BodyKind.BYTES), Outgoing(queue, b"")])
    first, second, third = take(broker.subscribe(queue, window=10), 3)
    assert (first.source, first.body, first.headers["event_id"]) == (queue, b'{"n": 1}', "e:1")
    assert {name: first.headers[name] for name in headers} == headers
    assert first.properties.correlation_id == "c 1"
    assert first.properties.type == "T"
    assert (second.body, second.kind) == (b"\0\1", BodyKind.BYTES)
    assert (third.body, third.hides_body) == (b"", False)
    assert first.kind is third.kind is BodyKind.TEXT
    assert not any(message.redelivered for message in (first, second, third))


@pytest.mark.parametrize("server", [each for each in SERVERS if each.values != ("artemis",)], indirect=True)
def test_unacked_messages_come_again_with_the_same_identity(server: Any, connect: Connect) -> None:
    links, queue = Links(), new_queue()
    with Proxy(server.stomp_port) as proxy:
        before, subscription = half_acked(connect(f"stomp://127.0.0.1:{proxy.port}", links), queue)
        proxy.cut()
        links.wait_for(ConnectionState.CONNECTED, 2)
        again = take(subscription, 2)
    assert bodies(again) == bodies(before[2:])
    assert [message.identity for message in again] == [message.identity for message in before[2:]]
    assert all(message.redelivered for message in again)


@pytest.mark.long
@pytest.mark.artemis
def test_what_a_cut_leaves_behind_in_artemis_comes_after_its_restart(tmp_path: Path, connect: Connect) -> None:
    """After a cut Artemis 2.40 may keep a message for the session that has ended, until the broker is restarted."""
    links, queue = Links(), new_queue()
    server = Artemis(tmp_path / "artemis").start()
    try:
        with Proxy(server.stomp_port) as proxy:
            before, subscription = half_acked(connect(f"stomp://127.0.0.1:{proxy.port}", links), queue)
            proxy.cut()
            links.wait_for(ConnectionState.CONNECTED, 2)
            server.kill()
            server.start()
            links.wait_for(ConnectionState.CONNECTED, 3)
            again = take(subscription, 2)
        assert sorted(bodies(again)) == sorted(bodies(before[2:]))
        assert {message.id for message in again} == {message.id for message in before[2:]}
    finally:
        server.remove()


def half_acked(broker: Broker, queue: str) -> tuple[list[Message], Subscription]:
    """Return the four messages of `queue` as they came, of which the broker has the first two as acked."""
    send_all(broker, numbered(queue, 4))
    subscription = broker.subscribe(queue, window=10)
    before = take(subscription, 4)
    subscription.ack(before[:2])
    send_all(broker, [Outgoing(queue + ".barrier", b"")])
    return before, subscription


def test_the_window_bounds_what_is_unacked(server: Any, connect: Connect) -> None:
    broker, queue = connect(server.url), new_queue()
    send_all(broker, [Outgoing(queue, b"x" * 1000) for _ in range(100)])
    subscription = broker.subscribe(queue, window=10)
    held = take(subscription, 8)
    time.sleep(1)
    held += subscription.receive(100, 0.1)
    assert 8 <= len(held) <= 11
    subscription.ack(held)
    left = 100 - len(held)
    while left:
        more = take(subscription, 1)
        subscription.ack(more)
        left -= len(more)


def test_a_move_takes_from_one_queue_and_puts_into_another(server: Any, connect: Connect) -> None:
    broker, queue, other = connect(server.url), new_queue(), new_queue()
    send_all(broker, numbered(queue, 150))
    subscription = broker.subscribe(queue, window=200)
    moves = [Move(message, Outgoing(other, message.body)) for message in take(subscription, 150)]
    subscription.move(moves, TIMEOUT_S)
    assert sorted(bodies(take(broker.subscribe(other, window=200), 150))) == sorted(m.message.body for m in moves)
    send_all(broker, [Outgoing(queue, b"last")])
    assert bodies(subscription.receive(10, TIMEOUT_S)) == [b"last"]


def test_a_refused_move_keeps_the_message(server: Any, connect: Connect) -> None:
    links = Links()
    broker, queue = connect(server.url, links), new_queue()
    send_all(broker, numbered(queue, 1))
    subscription = broker.subscribe(queue, window=10)
    [message] = take(subscription, 1)
    with pytest.raises(MoveRefusedError):
        subscription.move([Move(message, Outgoing(queue, b"", headers={"long": "x" * 20_000}))], TIMEOUT_S)
    links.wait_for(ConnectionState.CONNECTED, 2)
    [again] = take(subscription, 1)
    assert again.identity == message.identity
    subscription.ack([again])


def test_a_broker_that_refuses_a_send_refuses_the_move(rabbitmq: Any, connect: Connect) -> None:
    links = Links()
    broker, queue = connect(rabbitmq.url, links), new_queue()
    send_all(broker, numbered(queue, 1))
    subscription = broker.subscribe(queue, window=10)
    [message] = take(subscription, 1)
    with pytest.raises(MoveRefusedError, match="not a valid"):
        subscription.move([Move(message, Outgoing("/nowhere/x", b""))], TIMEOUT_S)
    links.wait_for(ConnectionState.CONNECTED, 2)
    assert take(subscription, 1)[0].identity == message.identity


def test_selectors(server: Any, connect: Connect) -> None:
    broker, queue = connect(server.url), new_queue()
    send_all(broker, [Outgoing(queue, b"%d" % n, headers={"n": str(n % 2)}) for n in range(4)])
    if not broker.capabilities.selectors:
        with pytest.raises(RefusedError, match="has no selectors"):
            broker.subscribe(queue, window=10, selector="n = '1'")
        return
    assert bodies(take(broker.subscribe(queue, window=10, selector="n = '1'"), 2)) == [b"1", b"3"]
    with pytest.raises(RefusedError):
        broker.subscribe(queue, window=10, selector="n = = 1")


def test_patterns_are_refused_where_they_are_not_known(server: Any, connect: Connect) -> None:
    broker, queue = connect(server.url), new_queue()
    if not broker.capabilities.atomic_move:
        with pytest.raises(RefusedError, match="knows no patterns"):
            broker.subscribe(queue + ".>", window=10)
        # The connection goes on, or a new one does.
        send_all_patiently(broker, numbered(queue, 1))


def send_all_patiently(broker: Broker, messages: list[Outgoing]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            send_all(broker, messages)
        except (AssertionError, RefusedError):
            assert time.monotonic() < deadline
        else:
            return


def test_a_browse_shows_all_or_is_refused(server: Any, connect: Connect) -> None:
    broker, queue = connect(server.url), new_queue()
    send_all(broker, numbered(queue, 5))
    if broker.capabilities.browse is Browsing.NONE:
        with pytest.raises(RefusedError, match="no browsing"):
            broker.browse(queue, limit=10, timeout_s=TIMEOUT_S)
    else:
        assert len(broker.browse(queue, limit=10, timeout_s=TIMEOUT_S).messages) == 5
    assert len(take(broker.subscribe(queue, window=10), 5)) == 5


def test_a_depth_is_told_or_unknown(server: Any, connect: Connect) -> None:
    broker, queue = connect(server.url), new_queue()
    send_all(broker, numbered(queue, 5))
    subscription = broker.subscribe(queue, window=2)
    take(subscription, 2)
    depth = broker.measure(queue, TIMEOUT_S)
    if broker.capabilities.depth:
        assert depth is not None
        assert (depth.size, depth.consumers, depth.enqueued) == (5, 1, 5)
    else:
        assert depth is None


def test_an_exclusive_subscription(server: Any, connect: Connect) -> None:
    first, second, queue = connect(server.url), connect(server.url), new_queue()
    if not first.capabilities.exclusive:
        with pytest.raises(RefusedError, match="no exclusive"):
            first.subscribe(queue, window=10, exclusive=True)
        return
    holder = first.subscribe(queue, window=10, exclusive=True)
    if first.capabilities.selectors:
        other = second.subscribe(queue, window=10, exclusive=True)
        send_all(first, numbered(queue, 3))
        assert len(take(holder, 3)) == 3
        assert other.receive(1, 1.0) == []
    else:
        with pytest.raises(OccupiedError):
            second.subscribe(queue, window=10, exclusive=True)
        send_all(first, numbered(queue, 3))
        assert len(take(holder, 3)) == 3


def test_one_run_at_a_time(server: Any, connect: Connect) -> None:
    first, second, queue = connect(server.url), connect(server.url), new_queue()
    with locked(first, queue, "the first"), pytest.raises(BusyError), locked(second, queue, "the second"):
        pass
    with locked(connect(server.url), new_queue(), "another"):
        pass


def test_a_bulk_sender(server: Any, connect: Connect) -> None:
    broker, queue = connect(server.url), new_queue()
    sender = broker.bulk_sender(Outgoing(queue, b"", headers={"shared": "s"}), ["event_id"])
    sender.send([([f"e{n}"], b"%d" % n) for n in range(500)])
    assert sender.flush(TIMEOUT_S)
    messages = take(broker.subscribe(queue, window=100), 100)
    assert messages[7].headers["event_id"] == "e7"
    assert messages[7].headers["shared"] == "s"
    assert len({message.identity for message in messages}) == 100


def test_a_wrong_password_is_refused(server: Any, connect: Connect) -> None:
    with pytest.raises(RefusedError):
        connect(server.url, user="admin", password=Secret("wrong"))


def test_a_queue_with_arguments_of_its_own_is_consumed(rabbitmq: Any, connect: Connect) -> None:
    queue, links = new_queue(), Links()
    raw = rabbitmq.raw()
    raw.send(queue, [({"x-max-priority": "9"}, b"1")])
    raw.close()
    broker = connect(rabbitmq.url, links)
    subscription = broker.subscribe(queue, window=10)
    assert bodies(take(subscription, 1)) == [b"1"]
