"""The pure core: order, windows, redelivery, expiry, without sockets."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.embedded.broker import destinations
from infertool.embedded.broker.core import Broker
from infertool.embedded.broker.destinations import Destination, Kind
from infertool.embedded.broker.messages import StoredMessage
from infertool.embedded.broker.queues import AckMode, Queue, Subscription


@dataclass
class Sink:
    """A consumer that keeps its messages."""

    ready: bool = True
    got: list[StoredMessage] = field(default_factory=list)

    def deliver(self, subscription: Subscription, message: StoredMessage) -> bool:
        self.got.append(message)
        message.delivery = len(self.got)
        if subscription.mode is AckMode.AUTO:
            return False
        subscription.unacked[message.id] = message
        return True


def message(name: str, *, priority: int = 4, expires: int = 0, persistent: bool = True) -> StoredMessage:
    return StoredMessage(name, {}, name.encode(), 0, priority, persistent, expires)


def subscription(
    sink: Sink | None = None, *, prefetch: int = 1000, mode: AckMode = AckMode.INDIVIDUAL, serial: int = 1
) -> Subscription:
    return Subscription("s", sink or Sink(), mode, prefetch, serial)


def subscribed(queue: Queue, **options: object) -> tuple[Subscription, Sink]:
    sink = Sink()
    made = subscription(sink, **options)  # type: ignore[arg-type]  # passed through
    made.queues.append(queue)
    queue.subscriptions.append(made)
    return made, sink


def names(messages: list[StoredMessage]) -> list[str]:
    return [item.id for item in messages]


priorities = st.lists(st.integers(0, 9), max_size=40)


@given(priorities)
def test_delivery_is_by_priority_then_by_arrival(given_priorities: list[int]) -> None:
    queue = Queue("q")
    _, sink = subscribed(queue)
    for number, priority in enumerate(given_priorities):
        queue.put(message(str(number), priority=priority))
    queue.dispatch(0)
    arrived = sorted(enumerate(given_priorities), key=lambda item: (-item[1], item[0]))
    assert names(sink.got) == [str(number) for number, _ in arrived]


@given(priorities, st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), max_size=6), st.data())
def test_the_order_holds_while_clients_come_and_go(
    given_priorities: list[int], clients: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Several clients at a time take some, ack some, and leave in any order; the last one gets the rest in order."""
    queue = Queue("q")
    for number, priority in enumerate(given_priorities):
        queue.put(message(str(number), priority=priority))
    left = set(range(len(given_priorities)))
    returned: set[str] = set()
    for together, prefetch in clients:
        present = [subscribed(queue, prefetch=prefetch)[0] for _ in range(together)]
        queue.dispatch(0)
        for client in data.draw(st.permutations(present)):
            queue.subscriptions.remove(client)
            for key in list(client.unacked):
                if data.draw(st.booleans()):
                    (_, acked), *_ = client.take(key)
                    queue.settle(acked, 0)
                    left.discard(int(key))
            returned |= set(client.unacked)
            queue.give_back(list(client.unacked.values()))
    _, last = subscribed(queue)
    queue.dispatch(0)
    assert names(last.got) == [str(n) for n in sorted(left, key=lambda n: (-given_priorities[n], n))]
    assert {item.id for item in last.got if item.returns} == returned & {str(n) for n in left}
    assert (queue.size, queue.waiting, queue.in_flight) == (len(left), 0, len(left))


def test_consumers_take_turns_and_full_ones_are_passed_over() -> None:
    queue = Queue("q")
    (_, one), (_, two), (_, narrow) = subscribed(queue), subscribed(queue), subscribed(queue, prefetch=1)
    for number in range(7):
        queue.put(message(str(number)))
        queue.dispatch(0)
    assert [names(one.got), names(two.got), names(narrow.got)] == [["0", "3", "5"], ["1", "4", "6"], ["2"]]


def test_with_selectors_consumers_take_turns_too() -> None:
    queue = Queue("q")
    (one, got_one), (_, got_two) = subscribed(queue), subscribed(queue)
    one.matches = lambda item: int(item.id) % 2 == 0
    for number in range(6):
        queue.put(message(str(number)))
    queue.dispatch(0)
    assert names(got_one.got) == ["0", "2", "4"]
    assert names(got_two.got) == ["1", "3", "5"]


def test_a_consumer_that_is_not_ready_gets_nothing_until_it_is() -> None:
    queue = Queue("q")
    _, sink = subscribed(queue)
    sink.ready = False
    queue.put(message("a"))
    queue.dispatch(0)
    assert sink.got == []
    sink.ready = True
    queue.dispatch(0)
    assert names(sink.got) == ["a"]


def test_expired_messages_are_not_delivered() -> None:
    queue = Queue("q")
    _, sink = subscribed(queue)
    for name, expires in (("never", 0), ("over", 10), ("later", 11)):
        queue.put(message(name, expires=expires))
    queue.dispatch(10)
    assert names(sink.got) == ["never", "later"]
    assert names(queue.take_expired()) == ["over"]
    assert (queue.size, queue.counts.expired) == (2, 1)


def test_a_sweep_takes_out_expired_messages_without_a_consumer() -> None:
    queue = Queue("q")
    for name, expires in (("a", 5), ("b", 0), ("c", 20)):
        queue.put(message(name, expires=expires))
    queue.sweep(10)
    assert names(queue.take_expired()) == ["a"]
    assert names(queue.browse()) == ["b", "c"]
    queue.sweep(30)
    assert names(queue.take_expired()) == ["c"]


def test_a_mailbox_drops_the_oldest() -> None:
    mailbox = Queue("t", limit=2)
    for name, priority in (("old", 9), ("mid", 0), ("new", 4)):
        mailbox.put(message(name, priority=priority))
    assert sorted(names(mailbox.browse())) == ["mid", "new"]
    assert mailbox.size == 2


def test_putting_back_restores_the_order_of_delivery() -> None:
    queue = Queue("q")
    held, _ = subscribed(queue, mode=AckMode.CLIENT)
    for name, priority in (("low", 1), ("high", 8), ("mid", 4)):
        queue.put(message(name, priority=priority))
    queue.dispatch(0)
    taken = held.take("mid")
    assert [key for key, _ in taken] == ["high", "mid"]
    held.put_back(taken)
    assert list(held.unacked) == ["high", "mid", "low"]


@pytest.fixture
def broker() -> Broker:
    return Broker("ID:test", lambda: 1000)


def test_the_page_size_caps_every_window(broker: Broker) -> None:
    from infertool.embedded.broker.incoming import to_subscription

    headers = {"id": "s", "destination": "/queue/q", "activemq.prefetchSize": "5000"}
    for page_size, window in ((None, 5000), (200, 200)):
        made = to_subscription(headers, Sink(), 1, page_size=page_size, version="1.2")
        assert made.prefetch == window


def test_a_dead_letter_is_a_copy_and_leaves_the_original_alone(broker: Broker) -> None:
    queue = broker.queue("q")
    original = message("m", expires=5000)
    broker.send(Destination(Kind.QUEUE, "q"), original)
    taker = subscription()
    broker.subscribe(Destination(Kind.QUEUE, "q"), taker)
    broker.dispatch()
    (_, held), *_ = taker.take("m")
    broker.settle([held])
    broker.dead_letter(held, "why")
    (letter,) = broker.queue("DLQ.q").browse()
    assert letter.headers == {
        "destination": "/queue/DLQ.q",
        "original-destination": "/queue/q",
        "originalExpiration": "5000",
        "expires": "0",
        "dlqDeliveryFailureCause": "why",
    }
    assert original.headers == {"destination": "/queue/q"}
    assert queue.size == 0


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a", "a", True), ("a", "b", False), ("a.*", "a.b", True), ("a.*", "a", False), ("a.*", "a.b.c", False),
        ("a.>", "a", True), ("a.>", "a.b.c", True), ("a.>", "b", False), ("*.b", "a.b", True), (">", "a.b", True),
        ("a.b", "a", False), ("a", "a.b", False),
    ],
)  # fmt: skip
def test_patterns(pattern: str, name: str, fits: bool) -> None:
    assert destinations.matches(pattern, name) is fits
    assert destinations.parse(f"/topic/{pattern}").is_pattern is any(mark in pattern for mark in "*>")
