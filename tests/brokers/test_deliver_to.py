"""Messages that are worked on in the thread that reads them: what it may hold up, and how it is relieved."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import pytest

from infertool.brokers.port import Broker, DeliversOnReader, Subscription
from infertool.message import Message
from infertool.net.connection_state import ConnectionState
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, Server, new_queue, numbered, send_all, stale_acks, take
from tests.support.proxy import Proxy


class Taker:
    """Takes messages, and stays in the first call that sees the body `holds_at` until it is let go."""

    def __init__(self, holds_at: bytes = b"") -> None:
        self.release = threading.Event()
        self.holding = threading.Event()
        self.threads: list[threading.Thread] = []
        self.messages: list[Message] = []
        self._holds_at = holds_at
        self._changed = threading.Condition()

    def __call__(self, messages: list[Message]) -> None:
        with self._changed:
            self.threads.append(threading.current_thread())
            self.messages += messages
            self._changed.notify_all()
        if self._holds_at in {message.body for message in messages} and not self.holding.is_set():
            self.holding.set()
            self.release.wait(TIMEOUT_S)

    def wait(self, count: int) -> list[Message]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.messages) >= count, TIMEOUT_S), len(self.messages)
            return self.messages[:count]


@pytest.fixture
def taker() -> Iterator[Taker]:
    taker = Taker(b'{"n": 0}')
    yield taker
    taker.release.set()
    stuck = taker.threads[0]
    stuck.join(TIMEOUT_S)
    assert not stuck.is_alive()


@runtime_checkable
class OnReader(Subscription, DeliversOnReader, Protocol):
    """A subscription that can deliver on the thread that reads."""


def subscribed(broker: Broker, queue: str, window: int) -> OnReader:
    subscription = broker.subscribe(queue, window=window)
    assert isinstance(subscription, OnReader)
    return subscription


def stuck(broker: Broker, subscription: OnReader, queue: str, taker: Taker) -> None:
    """Have the thread that reads stay in the taker, with a message of the queue."""
    assert subscription.deliver_to(taker) == []
    broker.send(numbered(queue, 1)[0], lambda _error: None)
    assert taker.holding.wait(TIMEOUT_S)


def bodies(messages: list[Message]) -> list[bytes]:
    return [message.body for message in messages]


def test_what_came_before_is_returned_and_all_else_delivered(server: Server, connect: Connect) -> None:
    queue, broker, taker = new_queue(), connect(server.url), Taker()
    subscription = subscribed(broker, queue, 100)
    send_all(broker, numbered(queue, 30))
    before = take(subscription, 10)
    before += subscription.deliver_to(taker)
    send_all(broker, numbered(queue, 60)[30:])
    everything = before + taker.wait(60 - len(before))
    assert bodies(everything) == [sent.body for sent in numbered(queue, 60)]
    assert {thread.name for thread in taker.threads} <= {"infertool-stomp-1-reader"}
    subscription.ack(everything)
    broker.close(TIMEOUT_S)
    assert connect(server.url).browse(queue, limit=1, timeout_s=TIMEOUT_S).depth in {0, None}


def test_another_thread_reads_on_while_one_is_stuck(server: Server, connect: Connect, taker: Taker) -> None:
    queue, broker = new_queue(), connect(server.url)
    subscription = subscribed(broker, queue, 300)
    stuck(broker, subscription, queue, taker)
    subscription.hand_off_reader()
    send_all(broker, numbered(queue, 201)[1:])  # each waits for its receipt, which somebody must read
    assert sorted(bodies(taker.wait(201))) == sorted(sent.body for sent in numbered(queue, 201))
    assert len(set(taker.threads)) == 2
    taker.release.set()
    send_all(broker, numbered(queue, 202)[201:])
    assert bodies(taker.wait(202))[201:] == [b'{"n": 201}']
    assert taker.threads[-1] is not taker.threads[0]


def test_nobody_is_relieved_who_is_not_stuck(server: Server, connect: Connect) -> None:
    queue, broker, taker = new_queue(), connect(server.url), Taker()
    subscription = subscribed(broker, queue, 10)
    assert subscription.deliver_to(taker) == []
    for _ in range(5):
        subscription.hand_off_reader()
    send_all(broker, numbered(queue, 5))
    taker.wait(5)
    assert len(set(taker.threads)) == 1


def test_a_connection_that_is_lost_meanwhile_comes_again(
    server: Server, connect: Connect, proxy: Proxy, links: Links, taker: Taker
) -> None:
    queue, broker = new_queue(), connect(proxy.url, links)
    subscription = subscribed(broker, queue, 10)
    stuck(broker, subscription, queue, taker)
    proxy.cut()
    subscription.hand_off_reader()
    links.wait_for(ConnectionState.CONNECTED, 2)
    send_all(broker, numbered(queue, 3)[1:])
    again = taker.wait(4)[1:]
    assert sorted(bodies(again)) == [sent.body for sent in numbered(queue, 3)]
    taker.release.set()
    subscription.ack(taker.messages)
    assert stale_acks(subscription) == 1
    broker.close(5)
    assert len(links.of(ConnectionState.CONNECTED)) == 2


def test_garbage_behind_the_message_that_is_worked_on(
    server: Server, connect: Connect, proxy: Proxy, links: Links, taker: Taker
) -> None:
    queue, broker = new_queue(), connect(proxy.url, links, heartbeat_s=10.0)
    subscription = subscribed(broker, queue, 10)
    assert subscription.deliver_to(taker) == []
    proxy.inject(
        b'MESSAGE\nsubscription:s1-1\nmessage-id:m\nack:a\ndestination:/queue/x\n\n{"n": 0}\0MESSAGE\nno colon\n\n\0'
    )
    assert taker.holding.wait(TIMEOUT_S)
    subscription.hand_off_reader()
    assert "without a colon" in links.wait_for(ConnectionState.LOST).reason
    links.wait_for(ConnectionState.CONNECTED, 2)
    taker.release.set()
    send_all(broker, numbered(queue, 3))
    assert bodies(taker.wait(4))[1:] == [sent.body for sent in numbered(queue, 3)]
    assert [len(links.of(state)) for state in (ConnectionState.LOST, ConnectionState.CONNECTED)] == [1, 2]


def test_closing_while_one_is_stuck(server: Server, connect: Connect, taker: Taker) -> None:
    queue, broker = new_queue(), connect(server.url)
    subscription = subscribed(broker, queue, 10)
    stuck(broker, subscription, queue, taker)
    threading.Timer(0.2, subscription.hand_off_reader).start()
    broker.close(TIMEOUT_S)
    assert taker.release.is_set() is False


def test_a_taker_that_raises_ends_the_connection_with_a_reason(server: Server, connect: Connect, links: Links) -> None:
    queue, broker = new_queue(), connect(server.url, links)
    calls: list[int] = []
    went_on = threading.Event()

    def fails_once(messages: list[Message]) -> None:
        calls.append(len(messages))
        if len(calls) == 1:
            raise ZeroDivisionError
        went_on.set()

    assert subscribed(broker, queue, 10).deliver_to(fails_once) == []
    send_all(broker, numbered(queue, 1))
    assert "the reader failed: ZeroDivisionError" in links.wait_for(ConnectionState.LOST).reason
    links.wait_for(ConnectionState.CONNECTED, 2)
    send_all(broker, numbered(queue, 1))
    assert went_on.wait(TIMEOUT_S)


def test_a_reader_that_was_handed_off_leaves_its_successor_replaceable(
    server: Server, connect: Connect, proxy: Proxy
) -> None:
    """A handed-off reader that goes on to another subscription's messages says nothing about the new reader."""
    queue, broker = new_queue(), connect(proxy.url, heartbeat_s=10.0)
    first, second, third = Taker(b"held 1"), Taker(b"held 2"), Taker()
    held = {b"held 1": first, b"held 2": second}
    one = subscribed(broker, queue, 10)
    one.deliver_to(lambda messages: held.get(messages[0].body, third)(messages))
    other = Taker()
    subscribed(broker, new_queue(), 10).deliver_to(other)
    try:
        proxy.inject(injected("s1-1", "held 1") + injected("s2-1", "other"))
        assert first.holding.wait(TIMEOUT_S)
        one.hand_off_reader()
        proxy.inject(injected("s1-1", "held 2"))
        assert second.holding.wait(TIMEOUT_S)
        first.release.set()
        other.wait(1)
        first.threads[0].join(TIMEOUT_S)
        one.hand_off_reader()
        proxy.inject(injected("s1-1", "last"))
        third.wait(1)
    finally:
        first.release.set()
        second.release.set()
    assert len({*first.threads, *second.threads, *third.threads}) == 3
    assert other.threads == first.threads


def injected(subscription: str, body: str) -> bytes:
    """Return a message that no broker sent."""
    return f"MESSAGE\nsubscription:{subscription}\nmessage-id:{body}\nack:a\ndestination:/queue/x\n\n{body}\0".encode()
