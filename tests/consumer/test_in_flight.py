from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from infertool.consumer.attempt import Event, FailedEvent, Failure
from infertool.consumer.in_flight import Admission, InFlight
from infertool.message import BodyKind, Message
from tests.support.messages import message

FAILURE = Failure("infer", "ValueError", "no")
QUEUES = ("/queue/c.1", "/queue/c.2")


def made(of: dict[str, str], *, epoch: int = 1, redelivered: bool = False) -> Message:
    """Return a delivery with the id `a` of this body, source and timestamp."""
    return message(
        of["body"].encode(),
        message_id="a",
        epoch=epoch,
        redelivered=redelivered,
        source=of["source"],
        timestamp=of["timestamp"],
    )


def acked(in_flight: InFlight, events: Sequence[Event]) -> list[Message]:
    """Confirm events; return what is to be acked."""
    return [event.message for event in in_flight.confirmed(events)]


def test_a_redelivery_of_an_event_in_work_takes_its_place() -> None:
    in_flight = InFlight(memory=10)
    (event,) = in_flight.admit([message(message_id="a", epoch=1)]).fresh
    again = message(message_id="a", epoch=2, redelivered=True)
    admission = in_flight.admit([again])
    assert admission.in_progress == [event]
    assert not admission.fresh
    assert acked(in_flight, [event]) == [again]


def test_a_redelivery_of_a_confirmed_event_is_only_acked() -> None:
    in_flight = InFlight(memory=10)
    events = in_flight.admit([message(message_id="a")]).fresh
    in_flight.confirmed(events)
    for epoch in (2, 3):
        again = message(message_id="a", epoch=epoch, redelivered=True)
        assert in_flight.admit([again]).confirmed == [again]
    assert len(in_flight) == 0


def test_an_event_that_is_confirmed_after_its_connection_was_lost_is_known_when_it_comes_back() -> None:
    in_flight = InFlight(memory=10)
    first, second = in_flight.admit([message(message_id=name) for name in "ab"]).fresh
    in_flight.admit([message(message_id="other", epoch=2)])
    in_flight.confirmed([first])
    in_flight.dead_lettered([second])
    again = message(message_id="a", epoch=2, redelivered=True)
    assert in_flight.admit([again]).confirmed == [again]
    assert in_flight.admit([message(message_id="b", epoch=2)]).fresh


@pytest.mark.parametrize(
    ("sources", "bodies"),
    [
        (QUEUES, (b"{}", b"{}")),  # one message, sent to both
        (QUEUES[:1] * 2, (b"{}", b"{}")),  # sent to one queue twice
        (QUEUES[:1] * 2, (b'{"n":1}', b'{"n":2}')),  # a JMS property `message-id`
    ],
)
def test_deliveries_of_one_connection_are_events_of_their_own_whatever_their_ids(
    sources: tuple[str, ...], bodies: tuple[bytes, ...]
) -> None:
    in_flight = InFlight(memory=10)
    both = [message(bodies[n], message_id="same", source=sources[n], token=f"t{n}") for n in (0, 1)]
    first = in_flight.admit(both[:1]).fresh
    second = in_flight.admit(both[1:]).fresh
    assert acked(in_flight, first) == both[:1]
    assert acked(in_flight, second) == both[1:]
    third = in_flight.admit([message(bodies[0], message_id="same", source=sources[0])])
    assert len(third.fresh) == 1, "an id that comes again on the same connection is another event"


def test_an_event_that_is_given_back_after_a_refused_move_is_moved_again_and_not_tried() -> None:
    """Over AMQP it comes on the same connection."""
    in_flight = InFlight(memory=10)
    (event,) = in_flight.admit([message(message_id="a")]).fresh
    failed = FailedEvent(event, FAILURE)
    for number in range(3):
        assert in_flight.postponed(failed, event.message) is False
        assert (len(in_flight), in_flight.unsettled()) == (0, 1)
        other = message(message_id="a", token=f"other-{number}")
        assert in_flight.admit([other]).fresh, "another event with this id"
        in_flight.confirmed([each for each in in_flight._open if each.message is other])
        again = message(message_id="a", redelivered=True, token=f"again-{number}")
        admission = in_flight.admit([again])
        assert (admission.failed, admission.fresh, event.message) == ([failed], [], again)
    in_flight.dead_lettered([event])
    assert in_flight.unsettled() == 0
    assert in_flight.wait_empty(0)


def test_one_that_is_given_back_before_the_refusal_is_known_takes_its_place() -> None:
    in_flight = InFlight(memory=10)
    (event,) = in_flight.admit([message(message_id="a")]).fresh
    tried = event.message
    in_flight.moving([event])
    again = message(message_id="a", redelivered=True, token="again")
    admission = in_flight.admit([again])
    assert (admission.in_progress, admission.fresh, event.message) == ([event], [], again)
    assert in_flight.postponed(FailedEvent(event, FAILURE), tried) is True
    assert (len(in_flight), in_flight.unsettled()) == (1, 1)
    in_flight.dead_lettered([event])
    assert in_flight.unsettled() == 0


def test_what_was_moved_is_not_known_any_more() -> None:
    in_flight = InFlight(memory=10)
    (event,) = in_flight.admit([message(message_id="a")]).fresh
    in_flight.moving([event])
    in_flight.dead_lettered([event])
    assert len(in_flight.admit([message(message_id="a", redelivered=True, token="other")]).fresh) == 1


def test_events_with_one_id_each_take_over_their_own_redelivery() -> None:
    in_flight = InFlight(memory=10)
    bodies = [b'{"n":%d}' % n for n in range(4)]
    events = in_flight.admit([message(body, message_id="same") for body in bodies]).fresh
    in_flight.confirmed(events[:1])
    assert in_flight.postponed(FailedEvent(events[1], FAILURE), events[1].message) is False
    again = [message(body, message_id="same", epoch=2, redelivered=True) for body in reversed(bodies)]
    admission = in_flight.admit(again)
    assert admission.in_progress == [events[3], events[2]]
    assert [dead.event for dead in admission.failed] == [events[1]]
    assert admission.confirmed == [again[3]]
    assert [event.message for event in events[1:]] == [again[2], again[1], again[0]]


@pytest.mark.parametrize(
    ("changed", "value"), [("body", '{"n":2}'), ("source", "/queue/c.2"), ("timestamp", "1700000000001")]
)
@pytest.mark.parametrize("state", ["open", "confirmed", "dead"])
@pytest.mark.parametrize("redelivered", [False, True])
def test_an_id_that_another_event_has_is_no_redelivery(changed: str, value: str, state: str, redelivered: bool) -> None:
    """The next broker of a failover counts from one again; a business id in `message-id` comes twice."""
    in_flight = InFlight(memory=10)
    first = {"body": '{"n":1}', "source": "/queue/c.1", "timestamp": "1700000000000"}
    (event,) = in_flight.admit([made(first)]).fresh
    if state == "confirmed":
        in_flight.confirmed([event])
    if state == "dead":
        in_flight.postponed(FailedEvent(event, FAILURE), event.message)
    admission = in_flight.admit([made({**first, changed: value}, epoch=2, redelivered=redelivered)])
    assert len(admission.fresh) == 1
    assert admission.fresh[0] is not event
    assert (admission.in_progress, admission.confirmed, admission.failed) == ([], [], [])


@pytest.mark.parametrize("size", [0, 1023, 1024, 1025, 100_000])
def test_bodies_of_one_size_are_told_apart_whether_they_are_remembered_or_summed(size: int) -> None:
    in_flight = InFlight(memory=10)
    in_flight.confirmed(in_flight.admit([message(b"a" * size + b"1", message_id="a")]).fresh)
    other = message(b"a" * size + b"2", message_id="a", epoch=2, redelivered=True)
    same = message(b"a" * size + b"1", message_id="a", epoch=2, redelivered=True)
    admission = in_flight.admit([other, same])
    assert [event.message for event in admission.fresh] == [other]
    assert admission.confirmed == [same]


def test_a_dead_event_that_came_back_is_expected_once_over_the_next_reconnect() -> None:
    in_flight = InFlight(memory=10)
    (event,) = in_flight.admit([message(message_id="a")]).fresh
    in_flight.postponed(FailedEvent(event, FAILURE), event.message)
    in_flight.admit([message(message_id="a", epoch=2)])
    assert in_flight.unsettled() == 1
    admission = in_flight.admit([message(message_id="a", epoch=3), message(b"{}", message_id="a", epoch=3)])
    assert (admission.in_progress, len(admission.fresh), admission.confirmed) == ([event], 1, [])


def test_a_delivery_of_a_connection_that_is_over_replaces_nothing() -> None:
    in_flight = InFlight(memory=10)
    newer = message(message_id="a", epoch=2, redelivered=True)
    (event,) = in_flight.admit([newer]).fresh
    late = message(message_id="a", epoch=1)
    assert in_flight.admit([late]) == Admission(left=[late])
    assert acked(in_flight, [event]) == [newer]


def test_a_dead_event_whose_move_was_lost_is_known_when_it_comes_back() -> None:
    in_flight = InFlight(memory=10)
    (event,) = in_flight.admit([message(message_id="a")]).fresh
    dead = FailedEvent(event, FAILURE)
    assert in_flight.postponed(dead, event.message) is False
    assert (len(in_flight), in_flight.unsettled()) == (0, 1)
    again = message(message_id="a", epoch=2)
    assert in_flight.admit([again]).failed == [dead]
    assert event.message is again
    in_flight.dead_lettered([event])
    assert in_flight.wait_empty(0)
    assert in_flight.unsettled() == 0


def test_a_move_that_failed_on_an_old_delivery_is_tried_with_the_newer_one() -> None:
    in_flight = InFlight(memory=10)
    (event,) = in_flight.admit([message(message_id="a", epoch=1)]).fresh
    tried = event.message
    in_flight.admit([message(message_id="a", epoch=2)])
    assert in_flight.postponed(FailedEvent(event, FAILURE), tried) is True
    assert len(in_flight) == 1


def test_memory_is_bounded_and_forgets_the_oldest() -> None:
    in_flight = InFlight(memory=2)
    for name in "abc":
        in_flight.confirmed(in_flight.admit([message(message_id=name)]).fresh)
    assert in_flight.admit([message(message_id="a", epoch=2)]).fresh
    assert in_flight.admit([message(message_id="c", epoch=2)]).confirmed


def test_waiting_for_the_last_event() -> None:
    in_flight = InFlight(memory=2)
    events = in_flight.admit([message()]).fresh
    assert not in_flight.wait_empty(0.01)
    in_flight.confirmed(events)
    assert in_flight.wait_empty(0)


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
def test_whatever_happens_each_delivery_is_settled_once_or_held(seed: int) -> None:
    chance = random.Random(seed)
    broker, in_flight = Broker(chance), InFlight(memory=10_000)
    work: list[Event] = []
    for _ in range(300):
        step = chance.random()
        if step < 0.5:
            admission = in_flight.admit([broker.deliver() for _ in range(chance.randint(1, 3))])
            work += admission.fresh + [dead.event for dead in admission.failed]
            broker.settle(admission.confirmed)
        elif step < 0.93 and work:
            event = work.pop(chance.randrange(len(work)))
            broker.settle(acked(in_flight, [event]))
        elif step >= 0.93:
            broker.lose()
            if work and chance.random() < 0.5:
                event = work.pop()
                in_flight.postponed(FailedEvent(event, FAILURE), event.message)
        # What the broker thinks we hold, we have open: the window cannot leak.
        open_now = [event.message.token for event in work if event.message.epoch == broker.epoch]
        assert sorted(open_now) == sorted(broker.held)
    while broker.unsettled:
        admission = in_flight.admit([broker.deliver()]) if broker.unsettled > len(broker.held) else Admission()
        broker.settle(admission.confirmed)
        broker.settle(acked(in_flight, [*admission.fresh, *work, *(dead.event for dead in admission.failed)]))
        work = []
    assert len(in_flight) == 0
    assert broker.settled == broker._sent


def test_an_event_that_is_kept_stays_with_the_broker_over_reconnects() -> None:
    in_flight = InFlight(memory=10)
    (event,) = in_flight.admit([message(message_id="a")]).fresh
    assert in_flight.keep([event]) == 1
    assert (len(in_flight), in_flight.unsettled()) == (0, 1)
    again = message(message_id="a", epoch=2, redelivered=True)
    admission = in_flight.admit([again])
    assert (admission.fresh, admission.in_progress) == ([], [event])
    assert (len(in_flight), in_flight.unsettled(), event.message) == (0, 1, again)


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_postponed_event_is_unsettled_however_many_events_follow(comes_back: bool) -> None:
    """The broker may have committed its dead letter: then it never comes back."""
    in_flight = InFlight(memory=3)
    lost, *others = in_flight.admit([message(message_id=name) for name in "abcdefgh"]).fresh
    in_flight.moving([lost])
    in_flight.postponed(FailedEvent(lost, FAILURE), lost.message)
    in_flight.confirmed(others)
    assert (len(in_flight), in_flight.unsettled()) == (0, 1)
    if comes_back:
        again = in_flight.admit([message(message_id="a", redelivered=True)]).failed
        assert [failed.event for failed in again] == [lost]
        assert in_flight.unsettled() == 1
        in_flight.dead_lettered([lost])
        assert in_flight.unsettled() == 0


def test_assignments_of_a_partition_say_nothing_of_the_others() -> None:
    in_flight = InFlight(memory=10)
    first = partitioned("p/0", 1)
    (zero, one) = in_flight.admit([first, partitioned("p/1", 5)]).fresh
    again = partitioned("p/0", 2)
    admission = in_flight.admit([again, partitioned("p/1", 5, "other"), first, partitioned("p/1", 4)])
    assert admission.in_progress == [zero]
    assert [event.message.id for event in admission.fresh] == ["other"]
    assert [(message.partition, message.epoch) for message in admission.left] == [("p/0", 1), ("p/1", 4)]
    assert acked(in_flight, [zero, one]) == [again, one.message]


@pytest.mark.parametrize("end", ["confirmed", "failed", "dead_lettered", "postponed", "released", "in progress"])
def test_an_event_of_a_revoked_partition_comes_back(end: str) -> None:
    in_flight = InFlight(memory=10)
    (event,) = in_flight.admit([partitioned("p/0", 1)]).fresh
    in_flight.moving([event])
    assert in_flight.revoke(frozenset({"p/0"})) == [event]
    assert (len(in_flight), in_flight.unsettled(), in_flight.wait_empty(0)) == (0, 0, True)
    assert in_flight.admit([partitioned("p/0", 1, "late")]).returned, "nothing is taken in of what was revoked"
    if end == "confirmed":
        assert acked(in_flight, [event]) == []
    elif end == "failed":
        assert in_flight.owned([event]) == []
    elif end == "dead_lettered":
        assert not in_flight.dead_lettered([event])
    elif end == "postponed":
        assert in_flight.postponed(FailedEvent(event, FAILURE), event.message) is False
    elif end == "released":
        # It came to the work queue after its partition had gone, and a later sweep took it from there.
        assert in_flight.release([event]) == []
    assert bool(in_flight.revoked) is (end == "in progress")
    assert in_flight.unsettled() == 0
    again = partitioned("p/0", 2)
    admission = in_flight.admit([again])
    assert admission.confirmed == ([again] if end == "confirmed" else [])
    assert admission.regained == ([event] if end == "in progress" else [])
    assert bool(admission.fresh) is (end not in {"confirmed", "in progress"})


def test_one_that_waits_for_another_move_or_is_kept_goes_with_its_partition() -> None:
    in_flight = InFlight(memory=10)
    failed, kept, other = in_flight.admit(
        [partitioned("p/0", 1), partitioned("p/0", 1, "b"), partitioned("p/1", 1)]
    ).fresh
    in_flight.postponed(FailedEvent(failed, FAILURE), failed.message)
    in_flight.keep([kept])
    assert set(in_flight.revoke(frozenset({"p/0"}))) == {failed, kept}
    assert (in_flight.unsettled(), list(in_flight._open)) == (1, [other])
    assert len(in_flight.admit([partitioned("p/0", 2), partitioned("p/0", 2, "b")]).fresh) == 2


def partitioned(partition: str, epoch: int, message_id: str = "a") -> Message:
    body, token = b"{}", f"{message_id}-{epoch}"
    return Message(
        message_id, "p", {}, body, BodyKind.TEXT, redelivered=epoch > 1, epoch=epoch, token=token, partition=partition
    )
