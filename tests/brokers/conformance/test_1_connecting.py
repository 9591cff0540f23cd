"""Connecting, being refused, coming back, and closing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest

from infertool import brokers
from infertool.brokers.port import Broker, Capabilities
from infertool.errors import ConnectionLostError, RefusedError, UnreachableError
from infertool.message import Outgoing
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.secret import Secret
from tests.brokers.conformance.conftest import Verdict
from tests.brokers.conformance.targets import Opened, Target
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, numbered, send_all, settings, take

HIDDEN = "hunter2-hidden"


@pytest.mark.case("declares `{name}`")
@pytest.mark.parametrize("name", [each.name for each in fields(Capabilities)])
def test_declares(target: Target, broker: Broker, verdict: Verdict, name: str) -> None:
    value = getattr(broker.capabilities, name)
    words = {True: "yes", False: "no", None: "all"}
    verdict(words[value] if value is None or isinstance(value, bool) else str(value))


@pytest.mark.case("a wrong password is refused, and not shown")
def test_a_wrong_password(target: Target, opened: Opened, connect: Connect, links: Links, verdict: Verdict) -> None:
    if not target.checks_logins:
        connect(opened.url, user="someone", password=Secret(HIDDEN))
        verdict("no: any login is accepted")
        return
    with pytest.raises(RefusedError) as caught:
        connect(opened.url, links, user="someone", password=Secret(HIDDEN))
    assert HIDDEN not in f"{caught.value} {caught.value!r} {links.events}"
    assert caught.value.reason
    assert caught.value.address == opened.url
    assert "broker.password" in caught.value.advice


@pytest.mark.case("an address where nothing answers is named")
def test_an_address_where_nothing_answers(opened: Opened, connect: Connect) -> None:
    url = opened.nobodys_url
    with pytest.raises(UnreachableError) as caught:
        connect(url)
    assert "nothing listens" in caught.value.what
    assert caught.value.address == url
    assert caught.value.advice


@pytest.mark.case("a lost connection is told with its reason, and replaced")
def test_a_lost_connection(opened: Opened, connect: Connect, links: Links, new_queue: Callable[[], str]) -> None:
    with opened.line() as line:
        broker = connect(line.url, links)
        line.cut()
        lost = links.wait_for(ConnectionState.LOST)
        assert (lost.address, lost.epoch, lost.retry_in_s is not None, bool(lost.reason)) == (line.url, 1, True, True)
        assert links.wait_for(ConnectionState.CONNECTED, 2).epoch == 2
        send_all(broker, numbered(new_queue(), 1))
        broker.close(TIMEOUT_S)
    assert [event.state for event in links.events] == [
        ConnectionState.CONNECTING, ConnectionState.CONNECTED,
        ConnectionState.LOST, ConnectionState.CONNECTING, ConnectionState.CONNECTED, ConnectionState.CLOSED,
    ]  # fmt: skip


@pytest.mark.case("a listener that raises does not end the supervision")
def test_a_listener_that_raises(opened: Opened, connect: Connect, links: Links, new_queue: Callable[[], str]) -> None:
    def listener(event: ConnectionEvent) -> None:
        links(event)
        raise ValueError(event)

    with opened.line() as line:
        broker = connect(line.url, listener)
        line.cut()
        links.wait_for(ConnectionState.CONNECTED, 2)
        send_all(broker, numbered(new_queue(), 1))
        broker.close(TIMEOUT_S)


@pytest.mark.case("close gives back what is unsettled, and twice is once")
def test_close(target: Target, opened: Opened, connect: Connect, links: Links, queue: str, verdict: Verdict) -> None:
    first = connect(opened.url, links)
    send_all(first, numbered(queue, 50))
    subscription = first.subscribe(queue, window=50)
    messages = take(subscription, 50)
    subscription.ack(messages[:20])
    first.close(TIMEOUT_S)
    first.close(TIMEOUT_S)
    assert subscription.receive(1, TIMEOUT_S) == []
    assert len(links.of(ConnectionState.CLOSED)) == 1
    with pytest.raises(ConnectionLostError):
        first.send(Outgoing(queue, b"{}"), print)
    again = take(connect(opened.url).subscribe(queue, window=50), 30)
    assert [message.body for message in again] == [message.body for message in messages[20:]]
    assert [message.id for message in again] == [message.id for message in messages[20:]]
    if target.marks_redeliveries:
        assert all(message.redelivered for message in again)
    else:
        verdict("yes, but it need not say that it is a redelivery")


@pytest.mark.case("close ends a wait for the next connection, and a stall")
def test_close_without_a_connection(opened: Opened, connect: Connect, links: Links, queue: str) -> None:
    with opened.line() as line:
        waiting = connect(line.url, links, reconnect_base_s=30.0, reconnect_max_s=30.0)
        line.cut()
        links.wait_for(ConnectionState.LOST)
        waiting.close(TIMEOUT_S)
        assert links.events[-1].state is ConnectionState.CLOSED
        stalled = connect(line.url)
        subscription = stalled.subscribe(queue, window=10)
        line.stall()
        stalled.close(0.3)
        assert subscription.receive(1, TIMEOUT_S) == []
        with pytest.raises(ConnectionLostError):
            stalled.send(Outgoing(queue, b"{}"), print)
        line.resume()


@pytest.mark.case("a broker that was never connected closes")
def test_close_before_connecting(opened: Opened) -> None:
    brokers.open(settings(opened.url)).close(TIMEOUT_S)
