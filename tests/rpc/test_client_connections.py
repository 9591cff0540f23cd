"""The client and its connection: lost, refused, stalled, closed; what becomes of the calls under way."""

from __future__ import annotations

import threading
import time

import pytest

from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Server
from infertool.errors import (
    CallTimeoutError,
    ConnectionLostError,
    RefusedError,
    UnreachableError,
    UnroutableError,
)
from infertool.rpc import Client, Counts
from tests.rpc.conftest import Connect
from tests.rpc.test_client import LONG, until
from tests.support.brokers import settings
from tests.support.present import present
from tests.support.responder import Responder, echo, silent


def test_calls_under_way_fail_when_the_connection_is_lost_and_later_ones_succeed(
    connect: Connect, server: Server
) -> None:
    line = server.new_address()
    client = connect(line.url)
    with Responder(server.url, "q", silent) as responder:
        calls = [client.call_nowait("q", n, timeout_s=LONG) for n in range(20)]
        responder.wait_for(20)
        line.faults.cut("cut by the test")
        for call in calls:
            with pytest.raises(ConnectionLostError, match="cut by the test"):
                call.result()
        responder.answer = echo
        until(lambda: _works(client))
    assert client.counts.lost >= 20


def _works(client: Client) -> bool:
    try:
        return bool(client.call("q", 7, timeout_s=LONG).value == 7)
    except ConnectionLostError:
        return False


def test_calls_that_retry_are_sent_again_with_the_same_ids(connect: Connect, server: Server) -> None:
    line = server.new_address()
    client = connect(line.url)
    with Responder(server.url, "q", silent) as responder:
        calls = [client.call_nowait("q", n, timeout_s=LONG, retry=True) for n in range(20)]
        before = responder.wait_for(20)
        responder.answer = echo
        line.faults.cut()
        assert [call.result().value for call in calls] == list(range(20))
        after = responder.wait_for(40)[20:]
    assert client.counts == Counts(answered=20)
    assert sorted(m.headers["event_id"] for m in before) == sorted(m.headers["event_id"] for m in after)
    assert sorted(present(m.correlation_id) for m in before) == sorted(present(m.correlation_id) for m in after)
    assert {m.properties.reply_to for m in before}.isdisjoint({m.properties.reply_to for m in after})


def test_a_reply_to_the_connection_before_is_refused_and_not_delivered(connect: Connect, server: Server) -> None:
    line = server.new_address()
    client = connect(line.url)
    with Responder(server.url, "q", silent) as responder:
        call = client.call_nowait("q", 1, timeout_s=LONG)
        [request] = responder.wait_for(1)
        line.faults.cut()
        with pytest.raises(ConnectionLostError):
            call.result()
        responder.send(echo(request)[0])
        until(lambda: len(responder.refused) == 1)
        assert isinstance(responder.refused[0], UnroutableError)
        assert responder.broker.reply_exists(present(request.properties.reply_to), LONG) is False


def test_without_a_connection_a_call_fails_at_once_unless_it_retries(connect: Connect, server: Server) -> None:
    line = server.new_address()
    client = connect(line.url)
    line.faults.plan(Operation.CONNECT, Effect.CUT_BEFORE, times=None)
    line.faults.cut()
    until(lambda: present(client._replies).address is None)
    with pytest.raises(ConnectionLostError):
        client.call("q", 1, timeout_s=LONG)
    with pytest.raises(CallTimeoutError):
        client.call("q", 1, timeout_s=0.3, retry=True)
    waiting = client.call_nowait("q", 3, timeout_s=LONG, retry=True)
    line.faults.clear()
    with Responder(server.url, "q"):
        assert waiting.result().value == 3


def test_a_confirmation_that_is_lost_with_its_connection(connect: Connect, server: Server) -> None:
    line = server.new_address()
    client = connect(line.url)
    line.faults.plan(Operation.SEND, Effect.CUT_AFTER)
    with Responder(server.url, "q") as responder:
        with pytest.raises(ConnectionLostError):
            client.call("q", 1, timeout_s=LONG)
        responder.wait_for(1)
        line.faults.plan(Operation.SEND, Effect.CUT_BEFORE)
        assert client.call("q", 2, timeout_s=LONG, retry=True).value == 2


def test_a_broker_that_stalls_keeps_nobody_past_the_deadline(connect: Connect, server: Server) -> None:
    line = server.new_address()
    client = connect(line.url)
    line.faults.stall()
    # More than may be unconfirmed: the last ones are not even sent.
    calls = [client.call_nowait("q", n, timeout_s=0.2) for n in range(403)]
    for call in calls:
        with pytest.raises(CallTimeoutError):
            call.result(LONG)
    line.faults.resume()


def test_a_broker_that_takes_no_more_keeps_nobody_past_the_deadline(
    connect: Connect, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infertool.brokers.memory.connection._MOST_OPEN", 5)
    line = server.new_address()
    client = connect(line.url, receipt_timeout_s=LONG)
    line.faults.stall()
    began = time.monotonic()
    for n in range(8):
        with pytest.raises(CallTimeoutError):
            client.call("q", n, timeout_s=0.2)
    assert time.monotonic() - began < LONG / 2
    waiting = client.call_nowait("q", "later", timeout_s=0.2, retry=True)
    line.faults.resume()
    with pytest.raises(CallTimeoutError):
        waiting.result()
    with Responder(server.url, "q"):
        assert client.call("q", "now", timeout_s=LONG).value == "now"


def test_closing_fails_what_is_under_way(connect: Connect, server: Server) -> None:
    client = connect()
    calls = [client.call_nowait("q", 1, timeout_s=LONG, retry=retry) for retry in (False, True)]
    client.close()
    for call in calls:
        with pytest.raises(ConnectionLostError, match="the client was closed"):
            call.result(LONG)
    with pytest.raises(ConnectionLostError, match="not connected"):
        client.call("q", 1, timeout_s=1)
    client.close()


def test_what_cannot_be_connected_leaves_nothing(server: Server) -> None:
    before = set(threading.enumerate())
    server.stop()
    with pytest.raises(UnreachableError), Client(settings(server.url)):
        pass
    assert set(threading.enumerate()) <= before


def test_a_broker_without_reply_addresses_is_refused() -> None:
    before = set(threading.enumerate())
    with Server("rpc-bare", login=("admin", "admin")) as bare:
        bare.capabilities = type(bare.capabilities)(
            **{
                **{name: getattr(bare.capabilities, name) for name in bare.capabilities.__slots__},
                "reply_addresses": False,
            }
        )
        with pytest.raises(RefusedError, match="queues for replies"), Client(settings(bare.url)):
            pass
    assert set(threading.enumerate()) <= before
