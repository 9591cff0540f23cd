"""Connections that are cut, stall, or turn to garbage: noticed, replaced, and nothing of the old one is used again."""

from __future__ import annotations

from queue import SimpleQueue

import pytest

from infertool.errors import ConnectionLostError
from infertool.message import Outgoing
from infertool.net.connection_state import ConnectionState
from tests.support.brokers import TIMEOUT_S, new_queue, numbered, send_all, take


def test_after_a_cut_everything_unsettled_comes_again(server, connect, proxy, links):
    queue, broker = new_queue(), connect(proxy.url, links)
    send_all(broker, numbered(queue, 300))
    subscription = broker.subscribe(queue, window=300)
    messages = take(subscription, 250)
    subscription.ack(messages[:100])
    send_all(broker, numbered(f"{queue}.barrier", 1))
    proxy.cut()
    lost = links.wait_for(ConnectionState.LOST)
    assert (lost.address, lost.epoch, lost.retry_in_s is not None) == (proxy.url, 1, True)
    again = take(subscription, 200)
    assert {message.epoch for message in again} == {2}
    assert {message.body for message in again} == {sent.body for sent in numbered(queue, 300)[100:]}
    seen = {message.body for message in messages}
    assert all(message.redelivered for message in again if message.body in seen)
    links.wait_for(ConnectionState.CONNECTED, 2)
    assert [event.state for event in links.events] == [
        ConnectionState.CONNECTING, ConnectionState.CONNECTED,
        ConnectionState.LOST, ConnectionState.CONNECTING, ConnectionState.CONNECTED,
    ]  # fmt: skip


def test_stale_acks_are_dropped_and_counted(server, connect, proxy, links):
    queue, broker = new_queue(), connect(proxy.url, links)
    send_all(broker, numbered(queue, 20))
    subscription = broker.subscribe(queue, window=20)
    stale = take(subscription, 20)
    proxy.cut()
    links.wait_for(ConnectionState.CONNECTED, 2)
    fresh = take(subscription, 20)
    subscription.ack([*stale, *fresh[:5]])
    assert subscription.stale_acks == 20
    broker.close(TIMEOUT_S)
    again = take(connect(server.url).subscribe(queue, window=20), 15)
    assert [message.body for message in again] == [message.body for message in fresh[5:]]


@pytest.mark.parametrize("size", [1, 100, 1000, 70_000])
def test_a_cut_in_the_middle_of_a_frame(server, connect, proxy, links, size):
    queue, broker = new_queue(), connect(proxy.url, links)
    sent = [Outgoing(queue, b"x" * 3000 + b"%d" % n) for n in range(50)]
    send_all(broker, sent)
    proxy.cut_after(size)
    subscription = broker.subscribe(queue, window=50)
    links.wait_for(ConnectionState.CONNECTED, 2)
    assert {message.body for message in take(subscription, 50)} == {outgoing.body for outgoing in sent}
    assert subscription.receive(1, 0.1) == []


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"MESSAGE\nno colon\n\n\0", "without a colon"),
        (b"HTTP/1.1 500 no\r\n\r\n", "not a STOMP frame"),
        (b"\0\0\0\n\n", "not a STOMP frame"),
        (b"SURPRISE\n\n\0", "unexpected frame 'SURPRISE'"),
    ],
)
def test_garbage_ends_the_connection_with_a_reason(server, connect, proxy, links, garbage, reason):
    queue, broker = new_queue(), connect(proxy.url, links, heartbeat_s=10.0)
    subscription = broker.subscribe(queue, window=10)
    proxy.inject(garbage)
    assert reason in links.wait_for(ConnectionState.LOST).reason
    links.wait_for(ConnectionState.CONNECTED, 2)
    send_all(broker, numbered(queue, 3))
    assert len(take(subscription, 3)) == 3


def test_a_server_that_falls_silent_is_noticed(server, connect, proxy, links):
    queue, broker = new_queue(), connect(proxy.url, links, heartbeat_s=1.0)
    subscription = broker.subscribe(queue, window=10)
    proxy.stall()
    assert "no sign of life" in links.wait_for(ConnectionState.LOST).reason
    proxy.resume()
    links.wait_for(ConnectionState.CONNECTED, 2)
    send_all(broker, numbered(queue, 1))
    assert len(take(subscription, 1)) == 1


def test_a_server_that_falls_silent_within_a_frame_is_noticed(server, connect, proxy, links):
    connect(proxy.url, links, heartbeat_s=1.0)
    proxy.stall()
    proxy.inject(b"MESSAGE\ncontent-length:10\n\nhalf")
    assert "no sign of life" in links.wait_for(ConnectionState.LOST).reason
    proxy.resume()


def test_sends_learn_of_the_loss(server, connect, proxy, links):
    queue, broker, answers = new_queue(), connect(proxy.url, links), SimpleQueue()
    proxy.stall()
    for message in numbered(queue, 20):
        broker.send(message, answers.put)
    proxy.cut()
    errors = [answers.get(timeout=TIMEOUT_S) for _ in range(20)]
    assert all(isinstance(error, ConnectionLostError) and error.address == proxy.url for error in errors)
    proxy.resume()
    links.wait_for(ConnectionState.CONNECTED, 2)
    send_all(broker, numbered(queue, 5))


def test_a_send_without_a_receipt_learns_of_it_in_time(server, connect, proxy):
    broker, answers = connect(proxy.url, receipt_timeout_s=0.3), SimpleQueue()
    proxy.stall()
    broker.send(Outgoing(new_queue(), b"{}"), answers.put)
    error = answers.get(timeout=TIMEOUT_S)
    assert isinstance(error, ConnectionLostError)
    assert "no receipt in time" in str(error)
    proxy.resume()


def test_a_server_that_reads_nothing_does_not_hold_anybody_for_ever(server, connect, proxy, links):
    broker = connect(proxy.url, links, heartbeat_s=1.0)
    proxy.stall()
    large = Outgoing(new_queue(), b"x" * 1_000_000)
    # Far more than all buffers on the way hold, so at some point send() waits for room.
    with pytest.raises(ConnectionLostError):
        send_all(broker, [large] * 1000)
    proxy.resume()


def test_closing_on_a_dead_peer_ends_in_time(server, connect, proxy):
    queue, broker = new_queue(), connect(proxy.url)
    subscription = broker.subscribe(queue, window=10)
    proxy.stall()
    broker.close(0.3)
    assert subscription.receive(1, TIMEOUT_S) == []
    with pytest.raises(ConnectionLostError):
        broker.send(Outgoing(queue, b"{}"), print)


def test_closing_while_disconnected(server, connect, proxy, links):
    broker = connect(proxy.url, links, reconnect_base_s=30.0, reconnect_max_s=30.0)
    proxy.cut()
    links.wait_for(ConnectionState.LOST)
    broker.close(5)
    assert links.events[-1].state is ConnectionState.CLOSED
    broker.close(5)
    assert len(links.of(ConnectionState.CLOSED)) == 1
