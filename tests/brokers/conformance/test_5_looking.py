"""Browsing and measuring: it changes nothing, and says whether it saw all."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from infertool.brokers.port import Broker, Browsing, Match
from infertool.errors import ConnectionLostError, RefusedError
from infertool.message import BodyKind, Message, Outgoing, Properties
from tests.brokers.conformance.conftest import Verdict
from tests.brokers.conformance.targets import Opened, Target
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, measured, new_queue, numbered, send_all, stale_acks, take, wait_for_depth


def bodies(messages: Sequence[Message | Outgoing]) -> list[bytes]:
    return [message.body for message in messages]


@pytest.fixture
def browses(target: Target, broker: Broker, queue: str, verdict: Verdict) -> bool:
    """Return True where the broker can browse; elsewhere check that it says so."""
    if target.offers(broker, "browse"):
        return True
    with pytest.raises(RefusedError, match=r"browsing|cannot be shown") as caught:
        broker.browse(queue, limit=1, timeout_s=TIMEOUT_S)
    assert caught.value.reason
    verdict("no: refused")
    return False


def is_proved(broker: Broker) -> bool:
    """Return True where the broker can prove that it showed all."""
    return broker.capabilities.depth or broker.capabilities.browse is Browsing.FULL


@pytest.mark.case("a browse shows what waits, in order, and leaves it")
def test_browse(target: Target, broker: Broker, queue: str, browses: bool, verdict: Verdict) -> None:
    sent = numbered(queue, 120)
    send_all(broker, sent)
    if not browses:
        return
    for _ in range(2):
        browse = broker.browse(queue, limit=1000, timeout_s=TIMEOUT_S)
        assert bodies(browse.messages) == bodies(sent)
        assert browse.complete == is_proved(broker)
        assert browse.depth == (120 if broker.capabilities.depth else None)
    taken = take(broker.subscribe(queue, window=120), 120)
    assert bodies(taken) == bodies(browse.messages)
    assert [message.id for message in taken] == [message.id for message in browse.messages]
    # AMQP has no browsing: messages are got, and given back.
    marks = bool(target.arguments)
    assert [message.redelivered for message in taken] == [marks] * 120
    if marks:
        verdict("yes, marked as redelivered")


@pytest.mark.case("a browse shows headers, properties and the kind of a body")
def test_headers(target: Target, broker: Broker, queue: str, browses: bool) -> None:
    properties = Properties(priority=7, correlation_id="c")
    send_all(broker, [Outgoing(queue, b"\0\xff", BodyKind.BYTES, {"a:b": "1\n2"}, properties)])
    if not browses:
        return
    (message,) = broker.browse(queue, limit=10, timeout_s=TIMEOUT_S).messages
    assert (message.kind, message.body, message.source) == (BodyKind.BYTES, b"\0\xff", queue)
    assert (message.headers["a:b"], message.properties.priority, message.correlation_id) == (
        "1\n2",
        7 if target.keeps_priorities else None,
        "c",
    )


@pytest.mark.case("a browse of 450 messages shows all")
def test_many(broker: Broker, queue: str, browses: bool, verdict: Verdict) -> None:
    send_all(broker, numbered(queue, 450))
    if not browses:
        return
    browse = broker.browse(queue, limit=1000, timeout_s=TIMEOUT_S)
    if len(browse.messages) < 450:
        assert broker.capabilities.browse is Browsing.PARTIAL
        assert bodies(browse.messages) == bodies(numbered(queue, len(browse.messages)))
        assert not browse.complete
        assert browse.depth == (450 if broker.capabilities.depth else None)
        verdict(f"no: the first {len(browse.messages)}")
    elif is_proved(broker):
        assert browse.complete


@pytest.mark.case("a browse with a limit does not claim to be complete")
def test_a_limit(broker: Broker, queue: str, browses: bool) -> None:
    send_all(broker, numbered(queue, 12))
    if not browses:
        return
    browse = broker.browse(queue, limit=5, timeout_s=TIMEOUT_S)
    assert (len(browse.messages), browse.complete) == (5, False)
    assert browse.depth == (12 if broker.capabilities.depth else None)


@pytest.mark.case("a browse of an empty queue")
def test_an_empty_queue(broker: Broker, queue: str, browses: bool) -> None:
    if not browses:
        return
    browse = broker.browse(queue, limit=10, timeout_s=TIMEOUT_S)
    assert (browse.messages, browse.complete) == ([], is_proved(broker))
    assert browse.depth == (0 if broker.capabilities.depth else None)


@pytest.mark.case("a browse with a selector shows what matches, and does not claim to be complete")
def test_a_selector(broker: Broker, queue: str, browses: bool, verdict: Verdict) -> None:
    send_all(broker, [Outgoing(queue, b"%d" % n, headers={"n": str(n % 3)}) for n in range(9)])
    if not browses:
        return
    selector = Match(headers={"n": "1"})
    if not broker.capabilities.selectors:
        with pytest.raises(RefusedError, match="selectors"):
            broker.browse(queue, limit=10, timeout_s=TIMEOUT_S, selector=selector)
        verdict("no: refused")
        return
    browse = broker.browse(queue, limit=10, timeout_s=TIMEOUT_S, selector=selector)
    assert (bodies(browse.messages), browse.complete) == ([b"1", b"4", b"7"], False)


@pytest.mark.case("a browse with a selector that cannot be read is refused, and the connection lives")
def test_a_bad_selector(broker: Broker, queue: str, browses: bool) -> None:
    send_all(broker, numbered(queue, 1))
    with pytest.raises(RefusedError) as caught:
        broker.browse(queue, limit=10, timeout_s=TIMEOUT_S, selector="n = = 1")
    assert caught.value.reason
    if browses:
        assert len(broker.browse(queue, limit=10, timeout_s=TIMEOUT_S).messages) == 1


@pytest.mark.case("what a browse shows cannot be settled")
def test_nothing_is_settled(broker: Broker, queue: str, browses: bool) -> None:
    send_all(broker, numbered(queue, 3))
    if not browses:
        return
    shown = broker.browse(queue, limit=10, timeout_s=TIMEOUT_S).messages
    subscription = broker.subscribe(queue, window=3)
    taken = take(subscription, 3)
    subscription.ack(shown)
    assert stale_acks(subscription) == 3
    assert [message.id for message in taken] == [message.id for message in shown]
    subscription.ack(taken)


@pytest.mark.case("a browse of a closed broker is an error")
def test_a_closed_broker(opened: Opened, connect: Connect, queue: str) -> None:
    broker = connect(opened.url)
    broker.close(TIMEOUT_S)
    with pytest.raises(ConnectionLostError):
        broker.browse(queue, limit=10, timeout_s=TIMEOUT_S)


@pytest.mark.case("the depth of a queue")
def test_depth(broker: Broker, queue: str, verdict: Verdict) -> None:
    send_all(broker, numbered(queue, 7))
    subscription = broker.subscribe(queue, window=5)
    subscription.ack(take(subscription, 5)[:2])
    take(subscription, 2)
    # A confirmed send behind the acks: the broker has worked on them.
    send_all(broker, numbered(f"{queue}.barrier", 1))
    depth = broker.measure(queue, TIMEOUT_S if broker.capabilities.depth else 0.3)
    if not broker.capabilities.depth:
        assert depth is None
        verdict("no: unknown")
        return
    assert depth is not None
    if broker.capabilities.log:
        # A commit comes within a second.
        deadline = time.monotonic() + TIMEOUT_S
        while (depth.size, depth.consumers, depth.enqueued, depth.dequeued) != (5, 1, 7, 2):
            assert time.monotonic() < deadline, depth
            depth = measured(broker, queue)
        verdict("what the group has not settled, and its consumers")
        return
    if depth.in_flight is None:
        assert (depth.size, depth.consumers, depth.enqueued, depth.dequeued) == (0, 1, None, None)
        verdict("what waits for delivery, and the consumers")
        return
    wait_for_depth(broker, queue, size=5, in_flight=5, consumers=1, enqueued=7, dequeued=2)


@pytest.mark.case("the depth of a queue that never was is unknown")
def test_no_depth(broker: Broker) -> None:
    began = time.monotonic()
    assert broker.measure(broker.conventions.queue(new_queue()), TIMEOUT_S) is None
    assert time.monotonic() - began < TIMEOUT_S, "the broker answers, and we wait on"
