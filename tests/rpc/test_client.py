"""The client on a broker in process: every way a call can end, and what is left behind."""

from __future__ import annotations

import concurrent.futures
import json
import threading
import time
from collections.abc import Callable

import pytest

from infertool import codec
from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.queues import NoQueue
from infertool.brokers.memory.server import Server
from infertool.errors import (
    CallTimeoutError,
    ConnectionLostError,
    RefusedError,
    RemoteFailureError,
    UnreachableError,
    UnreadableReplyError,
    UnroutableError,
    UsageError,
)
from infertool.message import BodyKind, Outgoing
from infertool.rpc import Client, Counts
from tests.support.brokers import TIMEOUT_S, settings
from tests.support.responder import Responder, echo, failure, reply, silent

# Longer than anything takes here; and a wait that is over.
LONG, SHORT = TIMEOUT_S, 0.05


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_call_returns_its_reply(client, server):
    with Responder(server.url, "q"):
        reply = client.call("q", {"n": [1, "ü", None]}, timeout_s=LONG)
    assert reply.value == {"n": [1, "ü", None]}
    assert (reply.status, reply.queue) == (None, "q")
    assert reply.elapsed_s > 0
    assert client.counts == Counts(answered=1)


def test_what_a_request_carries(client, server):
    before_ms = time.time() * 1000
    with Responder(server.url, "q") as responder:
        client.call("q", 1, timeout_s=LONG, priority=7, headers={"tenant": "a"})
        client.call("q", 1, timeout_s=LONG, headers={"event_id": "mine"}, codec="msgpack")
        [first, second] = responder.wait_for(2)
    asked = first.properties
    assert asked.correlation_id
    assert (asked.message_id, first.headers["event_id"]) == (asked.correlation_id, asked.correlation_id)
    assert (first.headers["tenant"], asked.priority, asked.content_type) == ("a", 7, "application/json")
    assert before_ms + LONG * 1000 <= float(first.headers["deadline"]) + 1 == asked.expires_ms + 1
    assert (asked.ttl_ms, asked.persistent, first.kind) == (LONG * 1000, False, BodyKind.TEXT)
    assert (second.headers["event_id"], second.properties.message_id) == ("mine", "mine")
    assert second.properties.correlation_id != asked.correlation_id
    assert (second.properties.content_type, second.kind) == ("application/msgpack", BodyKind.BYTES)


@pytest.mark.parametrize("value", [{"a": b"\0\1", "t": [1.5, -1]}, "text", None])
def test_messagepack(client, server, value):
    with Responder(server.url, "q"):
        assert client.call("q", value, timeout_s=LONG, codec=codec.MSGPACK).value == value


def test_a_reply_is_read_by_its_own_content_type(client, server):
    def answer(message):
        packed = codec.packed(codec.MSGPACK.encode([1, b"x"]), "gzip")
        properties = message.properties
        return [
            Outgoing(
                properties.reply_to,
                packed,
                properties=type(properties)(
                    correlation_id=properties.correlation_id,
                    content_type="application/x-msgpack",
                    content_encoding="gzip",
                ),
            )
        ]

    with Responder(server.url, "q", answer):
        assert client.call("q", {}, timeout_s=LONG).value == [1, b"x"]


def test_a_reply_that_cannot_be_read(client, server):
    with Responder(server.url, "q", lambda message: [reply(message, b"\xff not json")]):
        answer = client.call("q", 1, timeout_s=LONG)
        assert answer.body == b"\xff not json"
        with pytest.raises(UnreadableReplyError) as caught:
            _ = answer.value
    assert (caught.value.queue, caught.value.body) == ("q", b"\xff not json")


@pytest.mark.parametrize("status", ["FAILED", "EXPIRED"])
def test_a_failure_of_the_server(client, server, status):
    def answer(message):
        return [failure(message, status=status, retryable=False, event_id="e1", error="bad")]

    said = pytest.raises(RemoteFailureError, match="failed in the stage infer: ValueError: bad")
    with Responder(server.url, "q", answer), said as caught:
        client.call("q", 1, timeout_s=LONG)
    error = caught.value
    assert (error.error, error.error_type, error.stage, error.retryable, error.event_id, error.queue) == (
        "bad", "ValueError", "infer", False, "e1", "q",
    )  # fmt: skip
    assert client.counts == Counts(failed=1)


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff", b'{"retryable": "x"}'])
def test_a_failure_that_says_nothing_useful(client, server, body):
    said = pytest.raises(RemoteFailureError)
    with Responder(server.url, "q", lambda message: [reply(message, body, status="FAILED")]), said as caught:
        client.call("q", 1, timeout_s=LONG)
    assert caught.value.error
    assert caught.value.retryable is None


def test_a_result_that_looks_like_a_failure_is_a_result(client, server):
    with Responder(server.url, "q", lambda message: [reply(message, b'{"status":"FAILED"}')]):
        assert client.call("q", 1, timeout_s=LONG).value == {"status": "FAILED"}


def test_without_a_reply_the_call_ends_at_its_deadline_and_the_late_reply_is_dropped(client, server):
    with Responder(server.url, "q", silent) as responder:
        began = time.monotonic()
        with pytest.raises(CallTimeoutError, match=r"no reply from q within 0\.2 s") as caught:
            client.call("q", 1, timeout_s=0.2)
        assert time.monotonic() - began >= 0.2
        assert (caught.value.queue, caught.value.timeout_s, caught.value.exit_code) == ("q", 0.2, 4)
        [request] = responder.wait_for(1)
        responder.send(reply(request, b"1"))
        until(lambda: client.counts.late == 1)
    assert client.counts == Counts(timed_out=1, late=1)


def test_each_call_has_its_own_deadline(client, server):
    with Responder(server.url, "q", silent):
        slow = client.call_nowait("q", 1, timeout_s=LONG)
        later = client.call_nowait("q", 1, timeout_s=0.2)
        first = client.call_nowait("q", 1, timeout_s=0.05)
        done, _ = concurrent.futures.wait([slow, later, first], LONG, concurrent.futures.FIRST_COMPLETED)
        assert done == {first}
        with pytest.raises(CallTimeoutError):
            later.result()
        assert not slow.done()
        assert slow.cancel()
    assert client.counts == Counts(timed_out=2, cancelled=1)


def test_replies_in_any_order_reach_their_calls_and_1_000_are_under_way(client, server):
    with Responder(server.url, "q", silent) as responder:
        calls = [client.call_nowait("q", n, timeout_s=LONG) for n in range(1000)]
        assert client.under_way == 1000
        for request in reversed(responder.wait_for(1000)):
            responder.send(echo(request)[0])
        assert [call.result().value for call in calls] == list(range(1000))
    assert client.counts == Counts(answered=1000)


def test_many_threads_share_a_client(client, server):
    with Responder(server.url, "q"), concurrent.futures.ThreadPoolExecutor(16) as pool:
        asked = [f"{n}" for n in range(800)]
        assert list(pool.map(lambda n: client.call("q", n, timeout_s=LONG).value, asked)) == asked


def test_a_wrong_a_missing_and_a_second_correlation_id(client, server):
    def answer(message):
        return [
            reply(message, b'"wrong"', "somebody-elses"),
            Outgoing(message.properties.reply_to, b'"none"'),
            reply(message, b'"right"'),
            reply(message, b'"second"'),
        ]

    with Responder(server.url, "q", answer):
        assert client.call("q", 1, timeout_s=LONG).value == "right"
        until(lambda: client.counts.duplicates == 1)
    assert client.counts == Counts(answered=1, duplicates=1, unknown=2)


def test_cancel(client, server):
    with Responder(server.url, "q", silent) as responder:
        call = client.call_nowait("q", 1, timeout_s=LONG)
        other = client.call_nowait("q", 2, timeout_s=LONG)
        assert call.cancel()
        assert (call.cancelled(), call.done(), call.cancel()) == (True, True, True)
        with pytest.raises(concurrent.futures.CancelledError):
            call.result()
        for request in responder.wait_for(2):
            responder.send(echo(request)[0])
        assert other.result().value == 2
        assert not other.cancel()
        until(lambda: client.counts.late == 1)
    assert client.counts == Counts(answered=1, cancelled=1, late=1)


def test_an_interrupted_call_is_cancelled(client, monkeypatch):
    monkeypatch.setattr("infertool.rpc.reply.Call.result", lambda _call: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        client.call("q", 1, timeout_s=LONG)
    assert client.counts == Counts(cancelled=1)


def test_a_wait_for_a_result_may_be_shorter_than_the_call(client, server):
    with Responder(server.url, "q", silent) as responder:
        call = client.call_nowait("q", 1, timeout_s=LONG)
        with pytest.raises(TimeoutError):
            call.result(SHORT)
        responder.send(echo(responder.wait_for(1)[0])[0])
        assert call.result(LONG).value == 1


def test_callbacks_of_a_call(client, server):
    came: list[object] = []
    done = threading.Event()
    with Responder(server.url, "q"):
        call = client.call_nowait("q", 5, timeout_s=LONG)
        call.add_done_callback(lambda each: (came.append(each.result().value), done.set()))
        assert done.wait(LONG)
    assert came == [5]


def test_a_refused_request_fails_at_once(client, server):
    server.faults.refuse_queue("q")
    with pytest.raises(RefusedError, match="takes nothing"):
        client.call("q", 1, timeout_s=LONG)
    assert client.counts == Counts(refused=1)


def test_a_queue_that_is_not_there_fails_at_once(client, server, monkeypatch):
    def no_queue(_outgoing):
        raise NoQueue("there is none")

    monkeypatch.setattr(server, "send", no_queue)
    with pytest.raises(UnroutableError, match="there is none"):
        client.call("q", 1, timeout_s=LONG)
    assert client.counts == Counts(refused=1)


@pytest.mark.parametrize(("queue", "timeout_s"), [("a,b", 1), ("", 1), ("q", 0), ("q", -1)])
def test_what_cannot_be_called(client, queue, timeout_s):
    with pytest.raises(UsageError):
        client.call(queue, 1, timeout_s=timeout_s)
    assert client.under_way == 0


def test_what_the_codec_cannot_hold(client):
    with pytest.raises(codec.EncodeError):
        client.call("q", object(), timeout_s=1)
    assert client.under_way == 0


def test_calls_under_way_fail_when_the_connection_is_lost_and_later_ones_succeed(connect, server):
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
        return client.call("q", 7, timeout_s=LONG).value == 7
    except ConnectionLostError:
        return False


def test_calls_that_retry_are_sent_again_with_the_same_ids(connect, server):
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
    assert sorted(m.correlation_id for m in before) == sorted(m.correlation_id for m in after)
    assert {m.properties.reply_to for m in before}.isdisjoint({m.properties.reply_to for m in after})


def test_a_reply_to_the_connection_before_is_refused_and_not_delivered(connect, server):
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
        assert responder.broker.reply_exists(request.properties.reply_to, LONG) is False


def test_without_a_connection_a_call_fails_at_once_unless_it_retries(connect, server):
    line = server.new_address()
    client = connect(line.url)
    line.faults.plan(Operation.CONNECT, Effect.CUT_BEFORE, times=None)
    line.faults.cut()
    until(lambda: client._replies.address is None)
    with pytest.raises(ConnectionLostError):
        client.call("q", 1, timeout_s=LONG)
    with pytest.raises(CallTimeoutError):
        client.call("q", 1, timeout_s=0.3, retry=True)
    waiting = client.call_nowait("q", 3, timeout_s=LONG, retry=True)
    line.faults.clear()
    with Responder(server.url, "q"):
        assert waiting.result().value == 3


def test_a_confirmation_that_is_lost_with_its_connection(connect, server):
    line = server.new_address()
    client = connect(line.url)
    line.faults.plan(Operation.SEND, Effect.CUT_AFTER)
    with Responder(server.url, "q") as responder:
        with pytest.raises(ConnectionLostError):
            client.call("q", 1, timeout_s=LONG)
        responder.wait_for(1)
        line.faults.plan(Operation.SEND, Effect.CUT_BEFORE)
        assert client.call("q", 2, timeout_s=LONG, retry=True).value == 2


def test_a_broker_that_stalls_keeps_nobody_past_the_deadline(connect, server):
    line = server.new_address()
    client = connect(line.url)
    line.faults.stall()
    # More than may be unconfirmed: the last ones are not even sent.
    calls = [client.call_nowait("q", n, timeout_s=0.2) for n in range(403)]
    for call in calls:
        with pytest.raises(CallTimeoutError):
            call.result(LONG)
    line.faults.resume()


def test_a_broker_that_takes_no_more_keeps_nobody_past_the_deadline(connect, server, monkeypatch):
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


def test_closing_fails_what_is_under_way(connect, server):
    client = connect()
    calls = [client.call_nowait("q", 1, timeout_s=LONG, retry=retry) for retry in (False, True)]
    client.close()
    for call in calls:
        with pytest.raises(ConnectionLostError, match="the client was closed"):
            call.result(LONG)
    with pytest.raises(ConnectionLostError, match="not connected"):
        client.call("q", 1, timeout_s=1)
    client.close()


def test_what_cannot_be_connected_leaves_nothing(server):
    before = threading.active_count()
    server.stop()
    with pytest.raises(UnreachableError), Client(settings(server.url)):
        pass
    assert threading.active_count() == before


def test_a_broker_without_reply_addresses_is_refused():
    before = threading.active_count()
    with Server("rpc-bare", login=("admin", "admin")) as bare:
        bare.capabilities = type(bare.capabilities)(
            **{
                **{name: getattr(bare.capabilities, name) for name in bare.capabilities.__slots__},
                "reply_addresses": False,
            }
        )
        with pytest.raises(RefusedError, match="queues for replies"), Client(settings(bare.url)):
            pass
    assert threading.active_count() == before


def test_the_memory_of_ended_calls_is_bounded(client, server, monkeypatch):
    monkeypatch.setattr("infertool.rpc.pending._REMEMBERED", 10)
    with Responder(server.url, "q"):
        for n in range(50):
            assert client.call("q", n, timeout_s=LONG).value == n
    assert len(client._pending._ended) <= 21
    assert json.dumps(client.counts.answered) == "50"
