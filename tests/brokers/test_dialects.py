"""The adapter on ActiveMQ 6, Artemis and RabbitMQ: what the conformance suite does not ask of every broker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infertool.brokers.port import Broker, Move, Subscription
from infertool.brokers.stomp.connection import Connection
from infertool.deadletters.replay.companions import BusyError, locked
from infertool.errors import MoveRefusedError, RefusedError
from infertool.message import Message, Outgoing
from infertool.net.connection_state import ConnectionState
from tests.support.artemis import Artemis
from tests.support.brokers import TIMEOUT_S, Links, new_queue, numbered, send_all, take
from tests.support.frameproxy import FrameProxy
from tests.support.proxy import Proxy

SERVERS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("activemq6", "artemis", "rabbitmq")]
Connect = Callable[..., Broker]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def bodies(messages: list[Any]) -> list[bytes]:
    return [message.body for message in messages]


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


def test_a_refused_move_keeps_the_message(server: Any, connect: Connect) -> None:
    links = Links()
    broker, queue = connect(server.url, links), new_queue()
    send_all(broker, numbered(queue, 1))
    subscription = broker.subscribe(queue, window=10)
    [message] = take(subscription, 1)
    with pytest.raises(MoveRefusedError):
        subscription.move([Move(message, Outgoing(queue, b"", headers={"long": "x" * 20_000}))], TIMEOUT_S)
    if broker.capabilities.atomic_move:
        links.wait_for(ConnectionState.CONNECTED, 2)
    [again] = take(subscription, 1)
    assert again.identity == message.identity
    subscription.ack([again])


@pytest.mark.parametrize("server", [each for each in SERVERS if each.values != ("activemq6",)], indirect=True)
def test_the_sends_and_the_acks_of_a_move_are_a_write_each(
    server: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, queue = connect(server.url), new_queue()
    send_all(broker, numbered(queue, 50))
    subscription = broker.subscribe(queue, window=100)
    moves = [Move(message, Outgoing(queue + ".dlq", message.body)) for message in take(subscription, 50)]
    written: list[bytes] = []
    write = Connection.write

    def noted(connection: Connection, data: bytes) -> None:
        written.append(data.partition(b"\n")[0])
        write(connection, data)

    monkeypatch.setattr(Connection, "write", noted)
    subscription.move(moves, TIMEOUT_S)
    assert written == [b"SEND", b"ACK"]


@pytest.mark.artemis
def test_artemis_is_told_when_the_adapter_ends_a_connection(artemis: Artemis, connect: Connect) -> None:
    """Else it may keep a message for the session that has ended."""
    queue, heard = new_queue(), list[bytes]()
    ended = threading.Event()

    def hear(frame: bytes) -> bytes:
        heard.append(frame.strip().partition(b"\n")[0])
        if heard[-1] == b"DISCONNECT":
            ended.set()
        return frame

    with FrameProxy(artemis.stomp_port, to_server=hear) as proxy:
        broker = connect(proxy.url)
        send_all(broker, numbered(queue, 1))
        subscription = broker.subscribe(queue, window=10)
        [message] = take(subscription, 1)
        with pytest.raises(MoveRefusedError):
            subscription.move([Move(message, Outgoing(queue, b"", headers={"long": "x" * 20_000}))], TIMEOUT_S)
        assert ended.wait(TIMEOUT_S)
        assert heard.count(b"CONNECT") == 2
        broker.close(TIMEOUT_S)
        assert heard.count(b"DISCONNECT") == 2


def test_patterns_are_refused_where_they_are_not_known(server: Any, connect: Connect) -> None:
    broker, queue = connect(server.url), new_queue()
    if not broker.capabilities.atomic_move:
        with pytest.raises(RefusedError, match="knows no patterns"):
            broker.subscribe(queue + ".>", window=10)
        send_all(broker, numbered(queue, 1))


def test_one_run_at_a_time(server: Any, connect: Connect) -> None:
    first, second, queue = connect(server.url), connect(server.url), new_queue()
    with locked(first, queue, "the first"), pytest.raises(BusyError), locked(second, queue, "the second"):
        pass
    with locked(connect(server.url), new_queue(), "another"):
        pass


def test_a_queue_with_arguments_of_its_own_is_consumed(rabbitmq: Any, connect: Connect) -> None:
    queue, links = new_queue(), Links()
    raw = rabbitmq.raw()
    raw.send(queue, [({"x-max-priority": "9"}, b"1")])
    raw.close()
    broker = connect(rabbitmq.url, links)
    subscription = broker.subscribe(queue, window=10)
    assert bodies(take(subscription, 1)) == [b"1"]
