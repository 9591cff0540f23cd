"""Moving between queues: all or nothing, never lost, never doubled."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from infertool.brokers.headers import text
from infertool.brokers.port import Move
from infertool.errors import ConnectionLostError, MoveRefusedError, StaleMessagesError
from infertool.message import BodyKind, Outgoing
from infertool.net.connection_state import ConnectionState
from tests.support.brokers import NOBODYS, TIMEOUT_S, new_queue, numbered, send_all, take


def moved_to(queue, messages):
    return [Move(message, Outgoing(queue, message.body, message.kind, {"dlq_stage": "infer"})) for message in messages]


@pytest.mark.parametrize("count", [1, 100, 350])
def test_moved_messages_are_there_and_not_here(server, connect, count):
    queue, broker = new_queue(), connect(server.url)
    send_all(broker, numbered(queue, count))
    subscription = broker.subscribe(queue, window=count)
    messages = take(subscription, count)
    subscription.move(moved_to(f"{queue}.dlq", messages), TIMEOUT_S)
    assert broker.measure(queue, TIMEOUT_S).size == 0
    found = take(broker.subscribe(f"{queue}.dlq", window=count), count)
    assert [message.body for message in found] == [message.body for message in messages]
    assert {(m.kind, m.headers["dlq_stage"], text(m)["persistent"]) for m in found} == {
        (BodyKind.TEXT, "infer", "true")
    }


def test_moves_from_many_threads(server, connect):
    queue, broker = new_queue(), connect(server.url)
    send_all(broker, numbered(queue, 60))
    subscription = broker.subscribe(queue, window=60)
    with ThreadPoolExecutor(6) as pool:
        moves = [[move] for move in moved_to(f"{queue}.dlq", take(subscription, 60))]
        list(pool.map(lambda move: subscription.move(move, TIMEOUT_S), moves))
    bodies = {message.body for message in take(broker.subscribe(f"{queue}.dlq", window=100), 60)}
    assert len(bodies) == 60
    assert broker.measure(queue, TIMEOUT_S).size == 0


def refuse_send(message):
    return message, Outgoing(NOBODYS, b"{}")


def refuse_ack(message):
    return msgspec.structs.replace(message, token="no such ack"), Outgoing("/queue/test.refused", b"{}")


@pytest.mark.parametrize("spoil", [refuse_send, refuse_ack])
def test_a_refused_move_does_nothing_and_brings_the_messages_back(server, connect, links, spoil):
    queue, broker = new_queue(), connect(server.url, links)
    send_all(broker, numbered(queue, 5))
    subscription = broker.subscribe(queue, window=5)
    messages = take(subscription, 5)
    moves = moved_to(f"{queue}.dlq", messages)
    moves[2] = Move(*spoil(messages[2]))
    with pytest.raises(MoveRefusedError) as caught:
        subscription.move(moves, TIMEOUT_S)
    assert caught.value.reason
    assert "\n" not in str(caught.value)
    again = take(subscription, 5)
    # In which order a broker gives back what a transaction held is not promised.
    assert {message.body for message in again} == {message.body for message in messages}
    assert all(message.redelivered and message.epoch > messages[0].epoch for message in again)
    assert "refused a move" in links.of(ConnectionState.LOST)[0].reason
    with pytest.raises(StaleMessagesError):
        subscription.move(moved_to(f"{queue}.dlq", messages), TIMEOUT_S)
    subscription.move(moved_to(f"{queue}.dlq", again), TIMEOUT_S)
    assert len(take(broker.subscribe(f"{queue}.dlq", window=10), 5)) == 5


def test_a_move_that_loses_its_connection_did_all_or_nothing(server, connect, proxy, links):
    queue, broker = new_queue(), connect(proxy.url, links, receipt_timeout_s=20.0)
    send_all(broker, numbered(queue, 10))
    subscription = broker.subscribe(queue, window=10)
    messages = take(subscription, 10)
    proxy.stall()
    outcome = []

    def move():
        with pytest.raises(ConnectionLostError) as caught:
            subscription.move(moved_to(f"{queue}.dlq", messages), TIMEOUT_S)
        outcome.append(caught.value)

    mover = threading.Thread(target=move)
    mover.start()
    assert proxy.holding.wait(TIMEOUT_S)
    proxy.cut()
    proxy.resume()
    mover.join(TIMEOUT_S)
    assert outcome[0].address == proxy.url
    again = take(subscription, 10)
    assert [message.body for message in again] == [message.body for message in messages]
    assert connect(server.url).measure(f"{queue}.dlq", 1) is None


def test_a_move_without_an_answer_ends_in_time_and_its_messages_come_again(server, connect, proxy):
    queue, broker = new_queue(), connect(proxy.url)
    send_all(broker, numbered(queue, 3))
    subscription = broker.subscribe(queue, window=3)
    messages = take(subscription, 3)
    proxy.stall()
    with pytest.raises(ConnectionLostError, match="no receipt"):
        subscription.move(moved_to(f"{queue}.dlq", messages), 0.2)
    proxy.resume()
    assert len(take(subscription, 3)) == 3
