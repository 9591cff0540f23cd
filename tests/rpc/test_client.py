"""The client on a broker in process: every way a call can end, and what is left behind."""

from __future__ import annotations

import concurrent.futures
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

import pytest

from infertool import codec
from infertool.brokers.memory.queues import NoQueue
from infertool.brokers.memory.server import Server
from infertool.errors import (
    CallTimeoutError,
    RefusedError,
    RemoteFailureError,
    UnreadableReplyError,
    UnroutableError,
    UsageError,
)
from infertool.message import BodyKind, Outgoing
from infertool.rpc import Client, Counts, NewCall
from infertool.rpc.pending import Pending
from infertool.rpc.reply import Reply
from tests.rpc.conftest import Connect
from tests.support.brokers import TIMEOUT_S
from tests.support.present import present
from tests.support.responder import Responder, echo, failure, reply, silent

# Longer than anything takes here; and a wait that is over.
LONG, SHORT = TIMEOUT_S, 0.05


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_call_returns_its_reply(client: Client, server: Server) -> None:
    with Responder(server.url, "q"):
        reply = client.call("q", {"n": [1, "ü", None]}, timeout_s=LONG)
    assert reply.value == {"n": [1, "ü", None]}
    assert (reply.status, reply.queue) == (None, "q")
    assert reply.elapsed_s > 0
    assert client.counts == Counts(answered=1)


def test_what_a_request_carries(client: Client, server: Server) -> None:
    before_ms = time.time() * 1000
    with Responder(server.url, "q") as responder:
        client.call("q", 1, timeout_s=LONG, priority=7, headers={"tenant": "a"})
        client.call("q", 1, timeout_s=LONG, headers={"event_id": "mine"}, codec="msgpack")
        [first, second] = responder.wait_for(2)
    asked = first.properties
    assert asked.correlation_id
    assert (asked.message_id, first.headers["event_id"]) == (asked.correlation_id, asked.correlation_id)
    assert (first.headers["tenant"], asked.priority, asked.content_type) == ("a", 7, "application/json")
    assert before_ms + LONG * 1000 <= float(first.headers["deadline"]) + 1 == present(asked.expires_ms) + 1
    assert (asked.ttl_ms, asked.persistent, first.kind) == (LONG * 1000, False, BodyKind.TEXT)
    assert (second.headers["event_id"], second.properties.message_id) == ("mine", "mine")
    assert second.properties.correlation_id != asked.correlation_id
    assert (second.properties.content_type, second.kind) == ("application/msgpack", BodyKind.BYTES)


@pytest.mark.parametrize("value", [{"a": b"\0\1", "t": [1.5, -1]}, "text", None])
def test_messagepack(client: Client, server: Server, value: dict[str, Sequence[float]] | str | None) -> None:
    with Responder(server.url, "q"):
        assert client.call("q", value, timeout_s=LONG, codec=codec.MSGPACK).value == value


def test_a_reply_is_read_by_its_own_content_type(client: Client, server: Server) -> None:
    def answer(message: Any) -> list[Any]:
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


def test_a_reply_that_cannot_be_read(client: Client, server: Server) -> None:
    with Responder(server.url, "q", lambda message: [reply(message, b"\xff not json")]):
        answer = client.call("q", 1, timeout_s=LONG)
        assert answer.body == b"\xff not json"
        with pytest.raises(UnreadableReplyError) as caught:
            _ = answer.value
    assert (caught.value.queue, caught.value.body) == ("q", b"\xff not json")


@pytest.mark.parametrize("status", ["FAILED", "EXPIRED"])
def test_a_failure_of_the_server(client: Client, server: Server, status: str) -> None:
    def answer(message: Any) -> list[Any]:
        return [failure(message, status=status, retryable=False, event_id="e1", error="bad")]

    said = pytest.raises(RemoteFailureError, match="failed in the stage infer: ValueError: bad")
    with Responder(server.url, "q", answer), said as caught:
        client.call("q", 1, timeout_s=LONG)
    error = caught.value
    assert (error.error, error.error_type, error.stage, error.retryable, error.event_id, error.queue) == (
        "bad", "ValueError", "infer", False, "e1", "q",
    )  # fmt: skip
    assert client.counts == Counts(failed=1)


DEEP = b"[" * 5000 + b"]" * 5000


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"\xff", b'{"retryable": "x"}', b'{"error": ' + DEEP + b"}", b'{"event_id": ' + DEEP + b"}"]
)
def test_a_failure_that_says_nothing_useful(client: Client, server: Server, body: bytes) -> None:
    said = pytest.raises(RemoteFailureError)
    with Responder(server.url, "q", lambda message: [reply(message, body, status="FAILED")]), said as caught:
        client.call("q", 1, timeout_s=LONG)
    assert caught.value.error
    assert caught.value.retryable is None


def test_a_reply_that_cannot_be_looked_at_ends_its_call_and_no_other(
    client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(_codec: codec.Codec, body: bytes) -> Any:
        if body == b"1":
            raise MemoryError("no room")
        return json.loads(body)

    monkeypatch.setattr(codec, "decode", decode)
    with Responder(server.url, "q", lambda message: [reply(message, message.body, status="FAILED")]):
        calls = [client.call_nowait("q", n, timeout_s=LONG) for n in (1, 2)]
        with pytest.raises(UnreadableReplyError, match=r"MemoryError\('no room'\)"):
            calls[0].result()
        with pytest.raises(RemoteFailureError):
            calls[1].result()
    assert client.counts == Counts(failed=2)


def test_a_result_that_looks_like_a_failure_is_a_result(client: Client, server: Server) -> None:
    with Responder(server.url, "q", lambda message: [reply(message, b'{"status":"FAILED"}')]):
        assert client.call("q", 1, timeout_s=LONG).value == {"status": "FAILED"}


def test_without_a_reply_the_call_ends_at_its_deadline_and_the_late_reply_is_dropped(
    client: Client, server: Server
) -> None:
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


@pytest.mark.parametrize("wait", ["result", "exception", "call"])
def test_who_waits_for_a_call_ends_it_at_its_deadline(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    """The thread of the deadlines may be woken late."""
    monkeypatch.setattr(Pending, "_next_late", lambda _self: None)
    client = connect()
    if wait == "call":
        with pytest.raises(CallTimeoutError):
            client.call("q", 1, timeout_s=0.1)
    else:
        call = client.call_nowait("q", 1, timeout_s=0.1)
        with pytest.raises(TimeoutError):
            call.result(0.01)
        if wait == "result":
            with pytest.raises(CallTimeoutError):
                call.result(LONG)
        assert isinstance(call.exception(), CallTimeoutError)
    assert client.counts == Counts(timed_out=1)


def test_each_call_has_its_own_deadline(client: Client, server: Server) -> None:
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


def test_replies_in_any_order_reach_their_calls_and_1_000_are_under_way(client: Client, server: Server) -> None:
    with Responder(server.url, "q", silent) as responder:
        calls = [client.call_nowait("q", n, timeout_s=LONG) for n in range(1000)]
        assert client.under_way == 1000
        for request in reversed(responder.wait_for(1000)):
            responder.send(echo(request)[0])
        assert [call.result().value for call in calls] == list(range(1000))
    assert client.counts == Counts(answered=1000)


def test_many_threads_share_a_client(client: Client, server: Server) -> None:
    with Responder(server.url, "q"), concurrent.futures.ThreadPoolExecutor(16) as pool:
        asked = [f"{n}" for n in range(800)]
        assert list(pool.map(lambda n: client.call("q", n, timeout_s=LONG).value, asked)) == asked


def test_a_wrong_a_missing_and_a_second_correlation_id(client: Client, server: Server) -> None:
    def answer(message: Any) -> list[Any]:
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


def test_cancel(client: Client, server: Server) -> None:
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


def test_what_is_cancelled_while_others_wait_for_room_is_not_sent(
    connect: Connect, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infertool.rpc.client._MOST_UNCONFIRMED", 5)
    client = connect()
    server.faults.stall()
    new = [NewCall(Outgoing("q", b"%d" % n), LONG) for n in range(20)]
    starting = threading.Thread(target=client.start_all, args=(new,))
    starting.start()
    until(lambda: client._room._waiting > 0)
    calls = client._pending.all()
    assert all(call.cancel() for call in calls[6:])
    server.faults.resume()
    starting.join(LONG)
    assert client.wait_for_confirmations(LONG)
    assert [stored.outgoing.body for stored in server.held("q")] == [b"%d" % n for n in range(6)]
    for call in calls:
        call.cancel()


def test_an_interrupted_call_is_cancelled(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infertool.rpc.reply.Call.result", lambda _call: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        client.call("q", 1, timeout_s=LONG)
    assert client.counts == Counts(cancelled=1)


def test_a_wait_for_a_result_may_be_shorter_than_the_call(client: Client, server: Server) -> None:
    with Responder(server.url, "q", silent) as responder:
        call = client.call_nowait("q", 1, timeout_s=LONG)
        with pytest.raises(TimeoutError):
            call.result(SHORT)
        responder.send(echo(responder.wait_for(1)[0])[0])
        assert call.result(LONG).value == 1


def test_callbacks_of_a_call(client: Client, server: Server) -> None:
    came: list[object] = []
    done = threading.Event()
    with Responder(server.url, "q"):
        call = client.call_nowait("q", 5, timeout_s=LONG)

        def take(each: Future[Reply]) -> None:
            came.append(each.result().value)
            done.set()

        call.add_done_callback(take)
        assert done.wait(LONG)
    assert came == [5]


def test_a_refused_request_fails_at_once(client: Client, server: Server) -> None:
    server.faults.refuse_queue("q")
    with pytest.raises(RefusedError, match="takes nothing"):
        client.call("q", 1, timeout_s=LONG)
    assert client.counts == Counts(refused=1)


def test_a_queue_that_is_not_there_fails_at_once(
    client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_queue(_outgoing: Any) -> NoReturn:
        raise NoQueue("there is none")

    monkeypatch.setattr(server, "send", no_queue)
    with pytest.raises(UnroutableError, match="there is none"):
        client.call("q", 1, timeout_s=LONG)
    assert client.counts == Counts(refused=1)


@pytest.mark.parametrize(("queue", "timeout_s"), [("a,b", 1), ("", 1), ("q", 0), ("q", -1)])
def test_what_cannot_be_called(client: Client, queue: str, timeout_s: int) -> None:
    with pytest.raises(UsageError):
        client.call(queue, 1, timeout_s=timeout_s)
    assert client.under_way == 0


def test_what_the_codec_cannot_hold(client: Client) -> None:
    with pytest.raises(codec.EncodeError):
        client.call("q", object(), timeout_s=1)
    assert client.under_way == 0


def test_the_memory_of_ended_calls_is_bounded(client: Client, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infertool.rpc.pending._REMEMBERED", 10)
    with Responder(server.url, "q"):
        for n in range(50):
            assert client.call("q", n, timeout_s=LONG).value == n
    assert len(client._pending._ended) <= 21
    assert json.dumps(client.counts.answered) == "50"
