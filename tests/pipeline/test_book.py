from __future__ import annotations

import random

import pytest

from infertool.message import Message
from infertool.pipeline.book import Admission, Book
from infertool.pipeline.event import Dead, Event, Failure
from tests.support.messages import message

FAILURE = Failure("infer", "ValueError", "no")
QUEUES = ("/queue/c.1", "/queue/c.2")


def test_a_redelivery_of_an_event_in_work_takes_its_place() -> None:
    book = Book(memory=10)
    (event,) = book.admit([message(message_id="a", epoch=1)]).fresh
    again = message(message_id="a", epoch=2, redelivered=True)
    admission = book.admit([again])
    assert admission.in_work == [event]
    assert not admission.fresh
    assert book.confirmed([event]) == [again]


def test_a_redelivery_of_a_confirmed_event_is_only_acked() -> None:
    book = Book(memory=10)
    events = book.admit([message(message_id="a")]).fresh
    book.confirmed(events)
    for epoch in (2, 3):
        again = message(message_id="a", epoch=epoch, redelivered=True)
        assert book.admit([again]).confirmed == [again]
    assert len(book) == 0


def test_an_event_that_is_confirmed_after_its_connection_was_lost_is_known_when_it_comes_back() -> None:
    book = Book(memory=10)
    first, second = book.admit([message(message_id=name) for name in "ab"]).fresh
    book.admit([message(message_id="other", epoch=2)])
    book.confirmed([first])
    book.buried([second])
    again = message(message_id="a", epoch=2, redelivered=True)
    assert book.admit([again]).confirmed == [again]
    assert book.admit([message(message_id="b", epoch=2)]).fresh


@pytest.mark.parametrize(
    "alike",
    [
        {"source": QUEUES},  # one message, sent to both
        {"source": QUEUES[:1]},  # sent to one queue twice
        {"source": QUEUES[:1], "body": (b'{"n":1}', b'{"n":2}')},  # a JMS property `message-id`
    ],
)
def test_deliveries_of_one_connection_are_events_of_their_own_whatever_their_ids(alike) -> None:
    book = Book(memory=10)
    sources, bodies = alike["source"] * 2, alike.get("body", (b"{}", b"{}"))
    both = [message(bodies[n], message_id="same", source=sources[n], token=f"t{n}") for n in (0, 1)]
    first = book.admit(both[:1]).fresh
    second = book.admit(both[1:]).fresh
    assert book.confirmed(first) == both[:1]
    assert book.confirmed(second) == both[1:]
    third = book.admit([message(bodies[0], message_id="same", source=sources[0])])
    assert len(third.fresh) == 1, "an id that comes again on the same connection is another event"


def test_events_with_one_id_each_take_over_their_own_redelivery() -> None:
    book = Book(memory=10)
    bodies = [b'{"n":%d}' % n for n in range(4)]
    events = book.admit([message(body, message_id="same") for body in bodies]).fresh
    book.confirmed(events[:1])
    assert book.postponed(Dead(events[1], FAILURE), events[1].message) is False
    again = [message(body, message_id="same", epoch=2, redelivered=True) for body in reversed(bodies)]
    admission = book.admit(again)
    assert admission.in_work == [events[3], events[2]]
    assert [dead.event for dead in admission.dead] == [events[1]]
    assert admission.confirmed == [again[3]]
    assert [event.message for event in events[1:]] == [again[2], again[1], again[0]]


@pytest.mark.parametrize("other", [{"body": b'{"n":2}'}, {"source": "/queue/c.2"}, {"timestamp": "1700000000001"}])
@pytest.mark.parametrize("state", ["open", "confirmed", "dead"])
@pytest.mark.parametrize("redelivered", [False, True])
def test_an_id_that_another_event_has_is_no_redelivery(other, state, redelivered) -> None:
    """The next broker of a failover counts from one again; a business id in `message-id` comes twice."""
    book = Book(memory=10)
    made = {"body": b'{"n":1}', "source": "/queue/c.1", "timestamp": "1700000000000", "message_id": "a"}
    (event,) = book.admit([message(**made)]).fresh
    if state == "confirmed":
        book.confirmed([event])
    if state == "dead":
        book.postponed(Dead(event, FAILURE), event.message)
    admission = book.admit([message(**{**made, **other}, epoch=2, redelivered=redelivered)])
    assert len(admission.fresh) == 1
    assert admission.fresh[0] is not event
    assert (admission.in_work, admission.confirmed, admission.dead) == ([], [], [])


@pytest.mark.parametrize("size", [0, 1023, 1024, 1025, 100_000])
def test_bodies_of_one_size_are_told_apart_whether_they_are_remembered_or_summed(size) -> None:
    book = Book(memory=10)
    book.confirmed(book.admit([message(b"a" * size + b"1", message_id="a")]).fresh)
    other = message(b"a" * size + b"2", message_id="a", epoch=2, redelivered=True)
    same = message(b"a" * size + b"1", message_id="a", epoch=2, redelivered=True)
    admission = book.admit([other, same])
    assert [event.message for event in admission.fresh] == [other]
    assert admission.confirmed == [same]


def test_a_dead_event_that_came_back_is_expected_once_over_the_next_reconnect() -> None:
    book = Book(memory=10)
    (event,) = book.admit([message(message_id="a")]).fresh
    book.postponed(Dead(event, FAILURE), event.message)
    book.admit([message(message_id="a", epoch=2)])
    assert book.unsettled() == 1
    admission = book.admit([message(message_id="a", epoch=3), message(b"{}", message_id="a", epoch=3)])
    assert (admission.in_work, len(admission.fresh), admission.confirmed) == ([event], 1, [])


def test_a_delivery_of_a_connection_that_is_over_replaces_nothing() -> None:
    book = Book(memory=10)
    newer = message(message_id="a", epoch=2, redelivered=True)
    (event,) = book.admit([newer]).fresh
    late = message(message_id="a", epoch=1)
    assert book.admit([late]) == Admission(left=[late])
    assert book.confirmed([event]) == [newer]


def test_a_dead_event_whose_move_was_lost_is_known_when_it_comes_back() -> None:
    book = Book(memory=10)
    (event,) = book.admit([message(message_id="a")]).fresh
    dead = Dead(event, FAILURE)
    assert book.postponed(dead, event.message) is False
    assert (len(book), book.unsettled()) == (0, 1)
    again = message(message_id="a", epoch=2)
    assert book.admit([again]).dead == [dead]
    assert event.message is again
    book.buried([event])
    assert book.wait_empty(0)
    assert book.unsettled() == 0


def test_a_move_that_failed_on_an_old_delivery_is_tried_with_the_newer_one() -> None:
    book = Book(memory=10)
    (event,) = book.admit([message(message_id="a", epoch=1)]).fresh
    tried = event.message
    book.admit([message(message_id="a", epoch=2)])
    assert book.postponed(Dead(event, FAILURE), tried) is True
    assert len(book) == 1


def test_memory_is_bounded_and_forgets_the_oldest() -> None:
    book = Book(memory=2)
    for name in "abc":
        book.confirmed(book.admit([message(message_id=name)]).fresh)
    assert book.admit([message(message_id="a", epoch=2)]).fresh
    assert book.admit([message(message_id="c", epoch=2)]).confirmed


def test_waiting_for_the_last_event() -> None:
    book = Book(memory=2)
    events = book.admit([message()]).fresh
    assert not book.wait_empty(0.01)
    book.confirmed(events)
    assert book.wait_empty(0)


class Broker:
    """Delivers, loses its connection, and delivers again what was not settled on it. Few ids, few bodies."""

    def __init__(self, random_: random.Random) -> None:
        self._random = random_
        self._sent = 0
        self.epoch = 1
        self.held: dict[str, Message] = {}
        self._waiting: list[Message] = []

    def deliver(self) -> Message:
        if self._waiting:
            again = self._waiting.pop(self._random.randrange(len(self._waiting)))
            delivered = message(
                again.body, message_id=again.id, source=again.source, epoch=self.epoch, token=again.token,
                redelivered=True,
            )  # fmt: skip
        else:
            self._sent += 1
            body, source = b'{"n":%d}' % self._random.randrange(3), self._random.choice(QUEUES)
            delivered = message(
                body, message_id=self._random.choice("ab"), source=source, epoch=self.epoch, token=f"{self._sent}"
            )
        self.held[delivered.token] = delivered
        return delivered

    def settle(self, messages: list[Message]) -> None:
        for each in messages:
            if each.epoch == self.epoch:
                del self.held[each.token]  # KeyError: settled twice

    def lose(self) -> None:
        self._waiting += self.held.values()
        self.held = {}
        self.epoch += 1

    @property
    def unsettled(self) -> int:
        return len(self.held) + len(self._waiting)

    @property
    def settled(self) -> int:
        return self._sent - self.unsettled


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_each_delivery_is_settled_once_or_held(seed) -> None:
    chance = random.Random(seed)
    broker, book = Broker(chance), Book(memory=10_000)
    work: list[Event] = []
    for _ in range(300):
        step = chance.random()
        if step < 0.5:
            admission = book.admit([broker.deliver() for _ in range(chance.randint(1, 3))])
            work += admission.fresh + [dead.event for dead in admission.dead]
            broker.settle(admission.confirmed)
        elif step < 0.93 and work:
            event = work.pop(chance.randrange(len(work)))
            broker.settle(book.confirmed([event]))
        elif step >= 0.93:
            broker.lose()
            if work and chance.random() < 0.5:
                event = work.pop()
                book.postponed(Dead(event, FAILURE), event.message)
        # What the broker thinks we hold, we have open: the window cannot leak.
        open_now = [event.message.token for event in work if event.message.epoch == broker.epoch]
        assert sorted(open_now) == sorted(broker.held)
    while broker.unsettled:
        admission = book.admit([broker.deliver()]) if broker.unsettled > len(broker.held) else Admission()
        broker.settle(admission.confirmed)
        broker.settle(book.confirmed([*admission.fresh, *work, *(dead.event for dead in admission.dead)]))
        work = []
    assert len(book) == 0
    assert broker.settled == broker._sent


def test_an_event_that_is_kept_stays_with_the_broker_over_reconnects() -> None:
    book = Book(memory=10)
    (event,) = book.admit([message(message_id="a")]).fresh
    assert book.keep([event]) == 1
    assert (len(book), book.unsettled()) == (0, 1)
    again = message(message_id="a", epoch=2, redelivered=True)
    admission = book.admit([again])
    assert (admission.fresh, admission.in_work) == ([], [event])
    assert (len(book), book.unsettled(), event.message) == (0, 1, again)
