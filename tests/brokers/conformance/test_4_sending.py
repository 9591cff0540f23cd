"""Sending: confirmed, refused, lost, in bulk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import pytest

from infertool.brokers.port import Broker
from infertool.errors import ConnectionLostError, ReceiptTimeoutError, RefusedError
from infertool.message import BodyKind, Outgoing, Properties
from infertool.net.connection_state import ConnectionState
from tests.brokers.conformance.conftest import Verdict
from tests.brokers.conformance.targets import Opened, Target
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, numbered, send_all, take, wait_for_depth


def know(broker: Broker, queue: str) -> None:
    """Send once where a queue is looked up before the first send; again where a busy broker is late."""
    deadline = time.monotonic() + TIMEOUT_S
    while broker.capabilities.log:
        try:
            send_all(broker, numbered(queue, 1))
        except (AssertionError, ReceiptTimeoutError):
            assert time.monotonic() < deadline
        else:
            return


@pytest.mark.case("a send is confirmed once the broker holds the message")
def test_confirmed(broker: Broker, queue: str) -> None:
    send_all(broker, numbered(queue, 3000))
    if broker.capabilities.depth:
        wait_for_depth(broker, queue, size=3000)
    subscription = broker.subscribe(queue, window=200)
    for _ in range(15):
        subscription.ack(take(subscription, 200))


@pytest.mark.case("a refused send says why, and the connection lives")
def test_refused(target: Target, opened: Opened, connect: Connect, links: Links, queue: str, verdict: Verdict) -> None:
    broker, answers = connect(opened.url, links), SimpleQueue[Exception | None]()
    broker.send(Outgoing(opened.refused_queue, b"{}"), answers.put)
    refusal = answers.get(timeout=TIMEOUT_S)
    assert isinstance(refusal, RefusedError)
    assert refusal.address == broker.address
    assert refusal.reason
    assert "\n" not in refusal.reason
    if target.refusal_ends:
        links.wait_for(ConnectionState.CONNECTED, 2)
        verdict("it says why, and the connection is replaced")
    send_all(broker, numbered(queue, 1))
    assert len(links.of(ConnectionState.LOST)) == target.refusal_ends


@pytest.mark.case("callbacks come from a thread of the adapter, and may send")
def test_sends_from_a_callback(broker: Broker, queue: str) -> None:
    answers: SimpleQueue[Exception | None] = SimpleQueue()
    message = Outgoing(queue, b"{}", properties=Properties(persistent=False))

    def sent(error: Exception | None) -> None:
        answers.put(error)
        for _ in range(3):
            broker.send(message, answers.put)

    for _ in range(600):
        broker.send(message, sent)
    for _ in range(600 * 4):
        assert answers.get(timeout=TIMEOUT_S) is None


@pytest.mark.case("of several sends at once each has its own end, also without a connection")
def test_several_at_once(opened: Opened, connect: Connect, links: Links, new_queue: Callable[[], str]) -> None:
    queue, ends = new_queue(), SimpleQueue[Sequence[tuple[int, Exception | None]]]()

    def told() -> dict[int, Exception | None]:
        found: list[tuple[int, Exception | None]] = []
        while len(found) < 50:
            found += ends.get(timeout=TIMEOUT_S)
        return dict(found)

    messages = [(message, number) for number, message in enumerate(numbered(queue, 50))]
    with opened.line() as line:
        broker = connect(line.url, links, reconnect_base_s=30.0, reconnect_max_s=30.0)
        broker.send_all(messages, ends.put)
        assert told() == dict.fromkeys(range(50))
        found = take(broker.subscribe(queue, window=100), 50)
        assert [message.body for message in found] == [message.body for message, _ in messages]
        line.cut()
        links.wait_for(ConnectionState.LOST)
        broker.send_all(messages, ends.put)
        errors = told()
        assert errors.keys() == set(range(50))
        assert all(isinstance(error, ConnectionLostError) for error in errors.values())
        broker.close(TIMEOUT_S)


@pytest.mark.case("a callback that raises does not keep answers from others")
def test_a_callback_that_raises(broker: Broker, queue: str) -> None:
    def sent(_error: Exception | None) -> None:
        raise ZeroDivisionError

    broker.send(Outgoing(queue, b"1"), sent)
    send_all(broker, [Outgoing(queue, b"2")])


@pytest.mark.case("sends that wait for their confirmation learn of a cut")
def test_a_cut(opened: Opened, connect: Connect, links: Links, new_queue: Callable[[], str]) -> None:
    queue, answers = new_queue(), SimpleQueue[Exception | None]()
    with opened.line() as line:
        broker = connect(line.url, links)
        know(broker, queue)
        line.stall()
        for message in numbered(queue, 20):
            broker.send(message, answers.put)
        line.cut()
        errors = [answers.get(timeout=TIMEOUT_S) for _ in range(20)]
        assert all(isinstance(error, ConnectionLostError) and error.address == line.url for error in errors)
        line.resume()
        links.wait_for(ConnectionState.CONNECTED, 2)
        send_all(broker, numbered(queue, 5))
        broker.close(TIMEOUT_S)


@pytest.mark.case("a send that is not confirmed in time says so")
def test_without_a_confirmation(opened: Opened, connect: Connect, new_queue: Callable[[], str]) -> None:
    answers: SimpleQueue[Exception | None] = SimpleQueue()
    with opened.line() as line:
        queue = new_queue()
        broker = connect(line.url, receipt_timeout_s=0.3)
        know(broker, queue)
        line.stall()
        broker.send(Outgoing(queue, b"{}"), answers.put)
        error = answers.get(timeout=TIMEOUT_S)
        assert isinstance(error, ConnectionLostError)
        assert "in time" in str(error)
        line.resume()
        broker.close(TIMEOUT_S)


@pytest.mark.case("without a connection a send is an error at once")
def test_without_a_connection(opened: Opened, connect: Connect, links: Links, new_queue: Callable[[], str]) -> None:
    queue = new_queue()
    with opened.line() as line:
        broker = connect(line.url, links, reconnect_base_s=30.0, reconnect_max_s=30.0)
        sender = broker.bulk_sender(Outgoing(queue, b""), []) if broker.capabilities.log else None
        line.cut()
        links.wait_for(ConnectionState.LOST)
        sender = sender or broker.bulk_sender(Outgoing(queue, b""), [])
        for use in (
            lambda: broker.send(Outgoing(queue, b""), print),
            lambda: sender.send([([], b"")]),
            lambda: sender.flush(1),
            lambda: sender.wait_for_room(1),
            lambda: broker.browse(queue, limit=1, timeout_s=1),
        ):
            with pytest.raises(ConnectionLostError):
                use()
        assert broker.measure(queue, 1) is None
        broker.close(TIMEOUT_S)


@pytest.mark.case("a bulk sender sends a template with headers, properties and bodies of their own")
@pytest.mark.parametrize("kind", list(BodyKind))
def test_in_bulk(target: Target, broker: Broker, queue: str, kind: BodyKind) -> None:
    template = Outgoing(queue, b"", kind, {"all": "a:\\\n%s"}, Properties(priority=7, type="t"))
    sender = broker.bulk_sender(template, ["n", "correlation-id"])
    texts = [b"", b"plain", b"nul \0 in it", "grüße".encode()]
    for n, body in enumerate(texts):
        assert sender.wait_for_room(TIMEOUT_S)
        sender.send([((f"v:{n}\\", f"c{n}"), body)])
    assert sender.flush(TIMEOUT_S)
    assert (sender.refused, sender.reason) == (0, "")
    found = take(broker.subscribe(queue, window=10), 4)
    assert [message.body for message in found] == texts
    assert [(message.headers["all"], message.headers["n"]) for message in found] == [
        ("a:\\\n%s", f"v:{n}\\") for n in range(4)
    ]
    assert [message.correlation_id for message in found] == ["c0", "c1", "c2", "c3"]
    assert {(m.kind, m.properties.priority, m.properties.type, m.properties.persistent) for m in found} == {
        (kind, 7 if target.keeps_priorities else None, "t", True)
    }


@pytest.mark.case("a bulk sender counts what is refused")
def test_refused_in_bulk(
    target: Target, opened: Opened, connect: Connect, links: Links, queue: str, verdict: Verdict
) -> None:
    broker = connect(opened.url, links)
    sender = broker.bulk_sender(Outgoing(opened.refused_queue, b""), [])
    sender.send([((), b"1"), ((), b"2")])
    if target.refusal_ends:
        links.wait_for(ConnectionState.CONNECTED, 2)
        assert sender.flush(TIMEOUT_S)
        assert sender.refused in {1, 2}
        assert sender.reason
        send_all(broker, numbered(queue, 1))
        verdict("the first one, and the connection is replaced")
        return
    deadline = time.monotonic() + TIMEOUT_S
    # A refusal may come behind the answer to a flush (ActiveMQ).
    while sender.flush(TIMEOUT_S) and sender.refused < 2:
        assert time.monotonic() < deadline, sender.refused
    assert sender.refused == 2
    assert sender.reason
    send_all(broker, numbered(queue, 1))
