"""Messages reach the consumer from brokers that deliver on their reader, and from those that are asked."""

from __future__ import annotations

import queue
import threading
from typing import cast

from infertool.brokers.port import DeliversOnReader, Subscription
from infertool.brokers.stomp.subscription import StompSubscription
from infertool.consumer.in_flight import Intake
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

    def deliver_to(self, on_messages: object) -> list[Message]:
        self.on_messages = on_messages
        return [message(b"1")]

    def hand_off_reader(self) -> None:
        self.handed_off += 1


def intake(subscription: Asked, ran: list[Message], submitted: queue.Queue[Message]) -> Intake:
    def submit(messages: list[Message]) -> None:
        for each in messages:
            submitted.put(each)

    return Intake(cast("Subscription", subscription), 7, run=ran.extend, submit=submit)


def test_the_stomp_adapter_delivers_on_its_reader() -> None:
    assert issubclass(StompSubscription, DeliversOnReader)


def test_a_broker_that_delivers_calls_the_model_on_its_reader() -> None:
    ran: list[Message] = []
    submitted: queue.Queue[Message] = queue.Queue()
    subscription = Delivers()
    made = intake(subscription, ran, submitted)
    made.start()
    assert submitted.get_nowait().body == b"1"  # came before, so it is not on the reader
    assert submitted.empty()
    assert subscription.on_messages == ran.extend
    made.hand_off_reader()
    assert subscription.handed_off == 1
    made.stop(LONG)


def test_a_broker_that_does_not_is_asked_by_a_thread_of_the_consumer() -> None:
    ran: list[Message] = []
    submitted: queue.Queue[Message] = queue.Queue()
    subscription = Asked()
    made = intake(subscription, ran, submitted)
    made.start()
    for body in (b"1", b"2"):
        subscription.waiting.put(message(body))
        assert submitted.get(timeout=LONG).body == body
    made.hand_off_reader()  # there is none
    made.stop(LONG)
    assert "intake" not in {thread.name for thread in threading.enumerate()}
    assert not ran
    assert subscription.most == {7}
