"""Receiving and settling: the window, the order, what comes again, and who gets what."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from infertool.brokers.port import Broker, Match, Subscription, Widens
from infertool.errors import OccupiedError, RefusedError
from infertool.message import Message, Outgoing, Properties
from infertool.net.connection_state import ConnectionState
from tests.brokers.conformance.conftest import Verdict
from tests.brokers.conformance.targets import Opened, Target
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, measured, numbered, send_all, stale_acks, take, wait_for_depth


def bodies(messages: Sequence[Message | Outgoing]) -> list[bytes]:
    return [message.body for message in messages]


@pytest.mark.case("messages come in the order of sending")
def test_order(broker: Broker, queue: str) -> None:
    send_all(broker, numbered(queue, 300))
    messages = take(broker.subscribe(queue, window=300), 300)
    assert bodies(messages) == bodies(numbered(queue, 300))
    assert not any(message.redelivered for message in messages)
    assert {message.source for message in messages} == {queue}


@pytest.mark.case("no more than the window is unsettled")
@pytest.mark.parametrize("window", [1, 7, 450])
def test_the_window(target: Target, broker: Broker, queue: str, window: int, verdict: Verdict) -> None:
    if target.window_in_bytes:
        check_bytes(broker, queue, window)
        verdict("no: it is bytes, 1 KiB for each message of the window")
        return
    send_all(broker, numbered(queue, window + 50))
    subscription = broker.subscribe(queue, window=window)
    held = take(subscription, window)
    if target.offers(broker, "depth"):
        depth = measured(broker, queue)
        if broker.capabilities.log:
            assert (depth.size, depth.in_flight) == (window + 50, None)
        elif depth.in_flight is None:
            assert depth.size == 50
        else:
            assert (depth.size, depth.in_flight, depth.enqueued, depth.dequeued) == (
                window + 50,
                window,
                window + 50,
                0,
            )
    assert subscription.receive(1, 0.2) == []
    subscription.ack(held)
    for _ in range(50):
        subscription.ack(take(subscription, 1))


def check_bytes(broker: Broker, queue: str, window: int) -> None:
    """Check that no more than the window is unsettled, of messages that have 1 KiB or more."""
    send_all(broker, [Outgoing(queue, b"x" * 1024)] * (window + 50))
    subscription = broker.subscribe(queue, window=window)
    take(subscription, 1)
    depth = wait_for_depth(broker, queue, size=window + 50, enqueued=window + 50, dequeued=0)
    assert depth.in_flight is not None
    assert 1 <= depth.in_flight <= window


def test_a_window_grows(target: Target, broker: Broker, queue: str) -> None:
    subscription = broker.subscribe(queue, window=150)
    if not isinstance(subscription, Widens) or target.window_in_bytes:
        pytest.skip("windows are set once, or in bytes")
    send_all(broker, numbered(queue, 700))
    held = take(subscription, 150)
    assert subscription.receive(1, 0.2) == []
    subscription.widen(600)
    held += take(subscription, 450)
    assert subscription.receive(1, 0.2) == []
    assert len({message.body for message in held}) == 600
    subscription.ack(held)
    subscription.ack(take(subscription, 100))


@pytest.mark.case("after a cut all that is unsettled comes again, on the new connection")
def test_after_a_cut(
    target: Target, opened: Opened, connect: Connect, links: Links, queue: str, verdict: Verdict
) -> None:
    with opened.line() as line:
        broker = connect(line.url, links)
        send_all(broker, numbered(queue, 300))
        subscription = broker.subscribe(queue, window=300)
        messages = take(subscription, 250)
        subscription.ack(messages[:100])
        send_all(broker, numbered(f"{queue}.barrier", 1))
        line.cut()
        links.wait_for(ConnectionState.LOST)
        if broker.capabilities.log:
            links.wait_for(ConnectionState.CONNECTED, 2)
            rest = take(subscription, 50)
            assert bodies(messages + rest) == bodies(numbered(queue, 300))
            verdict("no: it stays in work, and can be settled")
            broker.close(TIMEOUT_S)
            return
        again = take(subscription, 200)
        assert {message.epoch for message in again} == {2}
        assert sorted(bodies(again)) == sorted(bodies(numbered(queue, 300)[100:]))
        ids = {message.body: message.id for message in messages}
        assert all(message.id == ids[message.body] for message in again if message.body in ids)
        assert not target.marks_redeliveries or all(m.redelivered for m in again if m.body in ids)
        assert subscription.receive(1, 0.1) == []
        broker.close(TIMEOUT_S)
    if target.farewell:
        verdict("yes, but for one that may stay until the broker is restarted")


@pytest.mark.case("acks of an earlier connection are dropped and counted")
def test_stale_acks(
    target: Target, opened: Opened, connect: Connect, links: Links, queue: str, verdict: Verdict
) -> None:
    with opened.line() as line:
        broker = connect(line.url, links)
        send_all(broker, numbered(queue, 20))
        subscription = broker.subscribe(queue, window=20)
        stale = take(subscription, 20)
        line.cut()
        links.wait_for(ConnectionState.CONNECTED, 2)
        if broker.capabilities.log:
            subscription.ack(stale)
            broker.close(TIMEOUT_S)
            other = connect(opened.url)
            send_all(other, [Outgoing(queue, b"the end")])
            repeated = bodies(take_until(b"the end", other.subscribe(queue, window=30)))
            assert stale_acks(subscription) == 0
            if target.shares:
                assert set(repeated) <= set(bodies(stale))
                verdict("no: they settle, or the events come again")
            else:
                assert repeated == []
                verdict("no: they settle, while the group has not given the partition to another consumer")
            return
        fresh = take(subscription, 20)
        subscription.ack([*stale, *fresh[:5]])
        assert stale_acks(subscription) == 20
        broker.close(TIMEOUT_S)
    again = take(connect(opened.url).subscribe(queue, window=20), 15)
    assert bodies(again) == bodies(fresh[5:])


def take_until(last: bytes, subscription: Subscription) -> list[Message]:
    """Return what comes before the message with this body."""
    found: list[Message] = []
    while not any(message.body == last for message in found):
        message = take(subscription, 1)
        subscription.ack(message)
        found += message
    return [message for message in found if message.body != last]


@pytest.mark.case("the number of earlier deliveries is told")
def test_delivery_count(
    target: Target, opened: Opened, connect: Connect, links: Links, queue: str, verdict: Verdict
) -> None:
    if target.fixture == "kafka":
        check_count_after_closing(target, opened, connect, queue)
        if not target.shares:
            verdict("no: only that it is a redelivery")
        return
    with opened.line() as line:
        broker = connect(line.url, links)
        send_all(broker, numbered(queue, 1))
        subscription = broker.subscribe(queue, window=1)
        counts = []
        for number in range(2, 5):
            (message,) = take(subscription, 1)
            counts.append(message.properties.delivery_count)
            line.cut()
            links.wait_for(ConnectionState.CONNECTED, number)
        broker.close(TIMEOUT_S)
    if target.offers(broker, "delivery_count"):
        assert counts == [0, 1, 2]
    else:
        assert counts in ([None, None, None], [0, None, None])
        verdict("no: only that it is a redelivery")


def check_count_after_closing(target: Target, opened: Opened, connect: Connect, queue: str) -> None:
    send_all(connect(opened.url), numbered(queue, 1))
    for redelivered in (False, True):
        broker = connect(opened.url)
        (message,) = take(broker.subscribe(queue, window=1), 1)
        assert message.properties.delivery_count == (int(redelivered) if target.shares else None)
        assert message.redelivered == redelivered
        broker.close(TIMEOUT_S)


@pytest.mark.case("subscriptions to one queue share its messages")
def test_sharing(
    target: Target, opened: Opened, connect: Connect, broker: Broker, queue: str, verdict: Verdict
) -> None:
    if target.shares:
        check_that_both_get_messages(opened, connect, queue)
        verdict("yes, a batch of a producer at a time")
        return
    if broker.capabilities.log:
        check_that_one_has_the_partition(opened, connect, queue)
        verdict("by partitions: of one, a single consumer gets all")
        return
    subscriptions = [each.subscribe(queue, window=10) for each in (broker, connect(opened.url))]
    send_all(broker, numbered(queue, 20))
    shares = [take(each, 10) for each in subscriptions]
    assert sorted(bodies(shares[0] + shares[1])) == sorted(bodies(numbered(queue, 20)))


def check_that_both_get_messages(opened: Opened, connect: Connect, queue: str) -> None:
    first, second = (connect(opened.url).subscribe(queue, window=20) for _ in range(2))
    other = connect(opened.url)
    send_all(other, [Outgoing(queue, b"first")])
    held: list[Message] = []
    while not held:
        held = first.receive(1, 0.1)
        if not held:
            first, second = second, first
    # What comes while one consumer has an event is for the other.
    send_all(other, [Outgoing(queue, b"next")])
    assert bodies(held + take(second, 1)) == [b"first", b"next"]


def check_that_one_has_the_partition(opened: Opened, connect: Connect, queue: str) -> None:
    first, second = connect(opened.url), connect(opened.url)
    owner, heir = (each.subscribe(queue, window=20) for each in (first, second))
    send_all(second, numbered(queue, 20))
    taken = take(owner, 20)
    assert heir.receive(1, 0.1) == []
    owner.ack(taken[:5])
    first.close(TIMEOUT_S)
    assert bodies(take(heir, 15)) == bodies(taken[5:])


@pytest.mark.case("an exclusive subscription gets everything until it ends")
def test_exclusive(target: Target, opened: Opened, connect: Connect, queue: str, verdict: Verdict) -> None:
    first, second = connect(opened.url), connect(opened.url)
    if "exclusive" in target.lacks:
        verdict("no: they share, unless the queue is theirs alone")
        return
    if not first.capabilities.exclusive:
        with pytest.raises(RefusedError, match="exclusive"):
            first.subscribe(queue, window=10, exclusive=True)
        send_all(first, numbered(queue, 1))
        verdict("no: refused")
        return
    owner = first.subscribe(queue, window=100, exclusive=True)
    if target.refusal_ends:
        with pytest.raises(OccupiedError):
            second.subscribe(queue, window=100, exclusive=True)
        send_all(first, numbered(queue, 20))
        assert len(take(owner, 20)) == 20
        verdict("no: another one is refused, and the queue ends with the first")
        return
    try:
        heir = second.subscribe(queue, window=100, exclusive=True)
    except OccupiedError:
        heir = None
        verdict("yes: a second one is refused")
    send_all(second, numbered(queue, 20))
    taken = take(owner, 20)
    assert heir is None or heir.receive(1, 0.2) == []
    owner.ack(taken[:5])
    first.close(TIMEOUT_S)
    heir = heir or second.subscribe(queue, window=100, exclusive=True)
    assert bodies(take(heir, 15)) == bodies(taken[5:])


@pytest.mark.case("a message of a higher priority comes first")
def test_priorities(target: Target, broker: Broker, queue: str, verdict: Verdict) -> None:
    sent = [Outgoing(queue, b"%d" % n, properties=Properties(priority=n)) for n in (1, 9, 4)]
    send_all(broker, sent)
    messages = take(broker.subscribe(queue, window=3), 3)
    if target.offers(broker, "priorities"):
        assert bodies(messages) == [b"9", b"4", b"1"]
    else:
        assert bodies(messages) == [b"1", b"9", b"4"]
        verdict("no: the order of sending")
    if target.keeps_priorities:
        assert {message.body: message.properties.priority for message in messages} == {b"1": 1, b"9": 9, b"4": 4}


@pytest.mark.case("a message that has expired is not delivered")
def test_expiry(broker: Broker, queue: str, verdict: Verdict) -> None:
    soon = int(time.time() * 1000) + 300
    send_all(broker, [Outgoing(queue, b"old", properties=Properties(expires_ms=soon)), Outgoing(queue, b"new")])
    # Nothing else makes a message expire than time, which RabbitMQ counts from the message's arrival.
    time.sleep(0.35)
    subscription = broker.subscribe(queue, window=10)
    if broker.capabilities.expiry:
        assert bodies(take(subscription, 1)) == [b"new"]
    else:
        assert bodies(take(subscription, 2)) == [b"old", b"new"]
        verdict("no: it is delivered")


@pytest.mark.case("a subscription with a selector gets what matches")
def test_selectors(broker: Broker, queue: str, verdict: Verdict) -> None:
    send_all(broker, [Outgoing(queue, b"%d" % n, headers={"n": str(n % 3)}) for n in range(9)])
    wanted = Match(headers={"n": "1"})
    if not broker.capabilities.selectors:
        with pytest.raises(RefusedError, match="selectors"):
            broker.subscribe(queue, window=10, selector=wanted)
        assert len(take(broker.subscribe(queue, window=10), 9)) == 9
        verdict("no: refused")
        return
    subscription = broker.subscribe(queue, window=10, selector=wanted)
    assert bodies(take(subscription, 3)) == [b"1", b"4", b"7"]
    assert subscription.receive(1, 0.1) == []


@pytest.mark.case("a selector by id, correlation id, or the start of a header")
def test_matches(target: Target, opened: Opened, connect: Connect, queue: str, links: Links, verdict: Verdict) -> None:
    broker = connect(opened.url, links)
    properties = [Properties(correlation_id=f"c'{n}") for n in range(4)]
    send_all(broker, [Outgoing(queue, b"%d" % n, headers={"n": f"it's {n}%"}, properties=properties[n])
                      for n in range(4)])  # fmt: skip
    wanted = [Match(correlation_id="c'2"), Match(prefixes={"n": "it's 2"})]
    by_id = Match(ids=(id_of(connect(opened.url), queue, b"2"),))
    if not broker.capabilities.selectors:
        for match in (by_id, *wanted):
            with pytest.raises(RefusedError, match="selectors"):
                broker.subscribe(queue, window=10, selector=match)
        verdict("no: refused")
        return
    if target.selects_ids:
        wanted.append(by_id)
    else:
        with pytest.raises(RefusedError, match="by its id"):
            broker.subscribe(queue, window=10, selector=by_id)
        verdict("yes, but by id: refused")
    for match in wanted:
        other = connect(opened.url)
        subscription = other.subscribe(queue, window=10, selector=match)
        assert bodies(take(subscription, 1)) == [b"2"]
        assert subscription.receive(1, 0.1) == []
        other.close(TIMEOUT_S)


def id_of(broker: Broker, queue: str, body: bytes) -> str:
    """Return the id of the message with that body, of four."""
    found = {message.body: message.id for message in take(broker.subscribe(queue, window=10), 4)}
    broker.close(TIMEOUT_S)
    return found[body]


@pytest.mark.case("a selector that cannot be read is refused, and the connection lives")
def test_a_bad_selector(
    target: Target, opened: Opened, connect: Connect, links: Links, queue: str, verdict: Verdict
) -> None:
    broker = connect(opened.url, links)
    with pytest.raises(RefusedError) as caught:
        broker.subscribe(queue, window=1, selector="n = = 1")
    assert caught.value.reason
    if target.refusal_ends and broker.capabilities.selectors:
        links.wait_for(ConnectionState.CONNECTED, 2)
        verdict("refused, and the connection is replaced")
    send_all(broker, numbered(queue, 1))
    assert len(take(broker.subscribe(queue, window=1), 1)) == 1
