"""A replay on a broker that cannot move atomically, with two letters of one event in its queue."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.port import Broker, OnSent
from infertool.deadletters import letters
from infertool.deadletters.record import Cause, dead_letter
from infertool.deadletters.replay.decide import Fate, Plan
from infertool.deadletters.replay.progress import Tally
from infertool.deadletters.replay.replay import Replay
from infertool.deadletters.replay.take import Bus
from infertool.deadletters.selection import select
from infertool.message import Outgoing
from infertool.settings.broker import BrokerSettings

CAUSE = Cause("e", "", "infer", "E", "no", 1, "2026-01-01T00:00:01.000Z", "2026-01-01T00:00:00.000Z", "c", "m")
IN, DEAD = "in", "dead"
TIMEOUT_S = 30.0


@pytest.fixture
def settings() -> BrokerSettings:
    return BrokerSettings(url=f"memory://{uuid.uuid4().hex}?atomic_move=no&exclusive=no")


@pytest.fixture
def broker(settings: BrokerSettings) -> Iterator[Broker]:
    opened = brokers.open(settings)
    opened.connect()
    yield opened
    opened.close(1.0)


def sets(done: threading.Event) -> OnSent:
    return lambda error: done.set() if error is None else None


def send(broker: Broker, *sent: Outgoing) -> None:
    for each in sent:
        done = threading.Event()
        broker.send(each, sets(done))
        assert done.wait(TIMEOUT_S)


def dies_twice(broker: Broker, settings: BrokerSettings, *events: bytes) -> None:
    """Send events, and leave two dead letters of each."""
    consumer = brokers.open(settings)
    consumer.connect()
    subscription = consumer.subscribe(IN, window=1)
    for body in events:
        send(broker, Outgoing(IN, body))
        [event] = subscription.receive(1, TIMEOUT_S)
        letter = dead_letter(event, CAUSE, DEAD, broker.conventions, atomic=broker.capabilities.atomic_move)
        send(broker, letter, letter)
        subscription.ack([event])
    consumer.close(1.0)


def replayed(broker: Broker, settings: BrokerSettings, **changes: Any) -> Tally:
    plan = Plan(queue=DEAD, run="r", began=0.0, depth=4, to=IN, **changes)
    bus = Bus(lambda linked: brokers.open(settings, on_connection=linked), TIMEOUT_S, lambda _event: None)
    return Replay(bus, plan, stop=threading.Event(), broker=broker).run()


def bodies(broker: Broker, queue: str) -> list[bytes]:
    return [message.body for message in broker.browse(queue, limit=10, timeout_s=TIMEOUT_S).messages]


def test_each_event_is_replayed_once_and_no_letter_stays(broker: Broker, settings: BrokerSettings) -> None:
    dies_twice(broker, settings, b'{"n":1}', b'{"n":2}')
    tally = replayed(broker, settings)
    assert (tally.fates[Fate.REPLAY], tally.fates[Fate.DOUBLE]) == (2, 2)
    assert bodies(broker, IN) == [b'{"n":1}', b'{"n":2}']
    assert bodies(broker, DEAD) == []


def test_both_of_two_that_are_left_out_are_put_back_and_still_one_letter(
    broker: Broker, settings: BrokerSettings
) -> None:
    dies_twice(broker, settings, b'{"n":1}', b'{"n":2}')
    tally = replayed(broker, settings, selection=select(where="n == 2", now=0.0))
    assert (tally.fates[Fate.REPLAY], tally.fates[Fate.DOUBLE], tally.restored) == (1, 1, 2)
    stay = broker.browse(DEAD, limit=10, timeout_s=TIMEOUT_S).messages
    shown, left_out = letters.once([letters.read(each) for each in stay])
    assert ([each.message.body for each in shown], left_out) == ([b'{"n":1}'], 1)
