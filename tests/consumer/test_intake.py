"""Messages reach the consumer from brokers that deliver on their reader, and from those that are asked."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import cast

from infertool.brokers.port import DeliversOnReader, Subscription
from infertool.brokers.stomp.subscription import StompSubscription
from infertool.consumer.intake import Intake
from infertool.message import Message
from tests.consumer.harness import LONG
from tests.support.messages import message


class Asked:
    """A subscription that has only `receive`."""

    def __init__(self) -> None:
        self.waiting: queue.Queue[Message] = queue.Queue()
        self.most: set[int] = set()

    def receive(self, max_messages: int, timeout_s: float) -> list[Message]:
        self.most.add(max_messages)
        try:
            return [self.waiting.get(timeout=timeout_s)]
        except queue.Empty:
            return []


class Delivers(Asked):
    """A subscription that delivers on its reader."""

    def __init__(self) -> None:
        super().__init__()
        self.handed_off = 0

    def deliver_to(self, on_messages: Callable[[list[Message]], None]) -> list[Message]:
        self.on_messages = on_messages
        return [message(b"1")]

    def hand_off_reader(self) -> None:
        self.handed_off += 1


def intake(subscription: Asked, ran: queue.Queue[Message], submitted: queue.Queue[Message]) -> Intake:
    def into(there: queue.Queue[Message]) -> Callable[[list[Message]], None]:
        def put(messages: list[Message]) -> None:
            for each in messages:
                there.put(each)

        return put

    return Intake(
        cast("Subscription", subscription), 7, run=into(ran), submit=into(submitted), fail=lambda _error: None
    )


def test_the_stomp_adapter_delivers_on_its_reader() -> None:
    assert issubclass(StompSubscription, DeliversOnReader)


def test_a_broker_that_delivers_calls_the_model_on_its_reader() -> None:
    ran: queue.Queue[Message] = queue.Queue()
    submitted: queue.Queue[Message] = queue.Queue()
    subscription = Delivers()
    made = intake(subscription, ran, submitted)
    made.start()
    assert submitted.get_nowait().body == b"1"  # came before, so it is not on the reader
    assert submitted.empty()
    subscription.on_messages([message(b"2")])
    assert ran.get_nowait().body == b"2"
    made.hand_off_reader()
    assert subscription.handed_off == 1
    made.stop(LONG)


def test_a_broker_that_does_not_is_asked_by_a_thread_of_the_consumer() -> None:
    ran: queue.Queue[Message] = queue.Queue()
    submitted: queue.Queue[Message] = queue.Queue()
    before = set(threading.enumerate())
    subscription = Asked()
    made = intake(subscription, ran, submitted)
    made.start()
    for body in (b"1", b"2"):
        subscription.waiting.put(message(body))
        assert ran.get(timeout=LONG).body == body
    made.stop(LONG)
    assert "intake" not in {thread.name for thread in set(threading.enumerate()) - before}
    assert submitted.empty()
    assert subscription.most == {7}


def test_another_thread_reads_on_when_that_thread_is_held_by_the_model() -> None:
    entered: queue.Queue[tuple[bytes, threading.Thread]] = queue.Queue()
    release = threading.Event()

    def run(messages: list[Message]) -> None:
        entered.put((messages[0].body, threading.current_thread()))
        if messages[0].body == b"slow":
            assert release.wait(LONG)

    before = set(threading.enumerate())
    subscription = Asked()
    made = Intake(cast("Subscription", subscription), 7, run=run, submit=run, fail=lambda _error: None)
    made.start()
    subscription.waiting.put(message(b"slow"))
    _, held = entered.get(timeout=LONG)
    made.hand_off_reader()
    for body in (b"1", b"2"):
        subscription.waiting.put(message(body))
        came, other = entered.get(timeout=LONG)
        assert came == body
        assert other is not held
    release.set()
    held.join(LONG)
    assert not held.is_alive()
    made.stop(LONG)
    made.hand_off_reader()  # too late
    assert "intake" not in {thread.name for thread in set(threading.enumerate()) - before}
