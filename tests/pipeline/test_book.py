from __future__ import annotations

from infertool.pipeline.book import Book
from infertool.pipeline.event import Dead, Failure
from tests.support.messages import message

FAILURE = Failure("infer", "ValueError", "no")


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
    again = message(message_id="a", epoch=2, redelivered=True)
    assert book.admit([again]).confirmed == [again]
    assert len(book) == 0


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
    assert book.admit([message(message_id="a")]).fresh
    assert book.admit([message(message_id="c")]).confirmed


def test_waiting_for_the_last_event() -> None:
    book = Book(memory=2)
    events = book.admit([message()]).fresh
    assert not book.wait_empty(0.01)
    book.confirmed(events)
    assert book.wait_empty(0)
