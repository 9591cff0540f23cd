"""A broker that says no later on: to the login after a reconnect, to a subscription."""

from __future__ import annotations

import pytest

from infertool.errors import RefusedError
from infertool.net.connection_state import ConnectionState
from tests.brokers.conftest import Connect
from tests.support.brokers import Links, take
from tests.support.scripted import Line, Script, Scripted


def cut_after_connecting(line: Line) -> None:
    line.connected()
    line.receipt("SUBSCRIBE")


def refuse_login(line: Line) -> None:
    line.expect("CONNECT")
    line.send(b"ERROR\nmessage:no more logins\n\nstack\0")


def refuse_subscription(line: Line) -> None:
    line.connected()
    headers = line.expect("SUBSCRIBE")
    line.send(f"ERROR\nreceipt-id:{headers['receipt']}\nmessage:not yours\\nat java\n\nstack\0".encode())


def serve_one(line: Line) -> None:
    line.connected()
    subscription = line.receipt("SUBSCRIBE")["id"]
    line.send(f"MESSAGE\nsubscription:{subscription}\nack:a1\n\nbody\0".encode())
    line.receipt("DISCONNECT")


def test_the_supervisor_goes_on_after_refusals_and_says_so(connect: Connect, links: Links) -> None:
    with Scripted(cut_after_connecting, refuse_login, refuse_subscription, serve_one) as server:
        broker = connect(server.url, links, reconnect_max_s=0.2)
        subscription = broker.subscribe("/queue/q", window=1)
        [message] = take(subscription, 1)
        assert (message.body, message.token) == (b"body", "a1")
        links.wait_for(ConnectionState.CONNECTED, times=2)
        broker.close(5)
    cut, login, subscribing = links.of(ConnectionState.LOST)
    assert "closed" in cut.reason
    assert "refused the login: no more logins" in login.reason
    assert "refused the subscription to /queue/q: not yours" in subscribing.reason
    # After a refusal the wait is at least half the longest.
    for each in (login, subscribing):
        assert each.retry_in_s is not None
        assert each.retry_in_s >= 0.1


def refuse_wildcard(line: Line) -> None:
    line.connected()
    line.expect("SUBSCRIBE")
    line.send(b"ERROR\nmessage:not yours\n\nstack\0")
    line.receipt("ABORT")
    line.receipt("DISCONNECT")


@pytest.mark.parametrize(("script", "queue"), [(refuse_subscription, "/queue/q"), (refuse_wildcard, "/queue/>")])
def test_a_refused_subscription_is_an_error(connect: Connect, script: Script, queue: str) -> None:
    with Scripted(script) as server:
        broker = connect(server.url)
        with pytest.raises(RefusedError) as caught:
            broker.subscribe(queue, window=10)
        assert caught.value.reason == "not yours"
        broker.close(0.5)
