"""Taking messages of a queue whose partitions go to other connections and come back."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from infertool import brokers
from infertool.brokers.memory.partitions import Partitions
from infertool.brokers.memory.server import Address, Server
from infertool.brokers.port import Move
from infertool.deadletters.replay.take import Bus, State, Taker
from infertool.message import Message, Outgoing
from infertool.settings.broker import BrokerSettings

QUEUE, TARGET = "dead", "target"
COUNT = 40


class Dead:
    """Letters in two partitions, all given to one address, and a taker there."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.partitions: Partitions = server.partition(QUEUE, 2)
        self.address: Address = server.new_address()
        for n in range(COUNT):
            server.send(Outgoing(QUEUE, b"%d" % n))
        self.partitions.assign(self.address)
        settings = BrokerSettings(url=self.address.url)
        self.taker = Taker(
            Bus(lambda on: brokers.open(settings, on_connection=on), 30, lambda _: None), QUEUE, stop=threading.Event()
        )

    def move(self, messages: list[Message]) -> State:
        return self.taker.move([Move(message, Outgoing(TARGET, message.body)) for message in messages], lambda _: None)

    def leaves_and_comes_back(self, partition: str) -> None:
        self.partitions.move(self.address, partition)

    def moved(self) -> Counter[bytes]:
        return Counter(stored.outgoing.body for stored in self.server.held(TARGET))


@pytest.fixture
def dead() -> Iterator[Dead]:
    with Server("taken") as server:
        yield Dead(server)


def test_a_partition_that_leaves_takes_its_messages_along_and_no_others(dead: Dead) -> None:
    with dead.taker as taker:
        first = taker.take(5)
        assert len({message.partition for message in first}) == 1
        dead.leaves_and_comes_back(first[0].partition)
        assert dead.move(first) is State.NOT_DONE
        while messages := taker.take(7, patience_s=0.2):
            assert dead.move(messages) is State.DONE
    assert dead.moved() == Counter({b"%d" % n: 1 for n in range(COUNT)})
    assert not dead.server.held(QUEUE)


def test_what_is_given_back_of_a_partition_that_left_is_dropped(dead: Dead) -> None:
    with dead.taker as taker:
        first = taker.take(COUNT)
        dead.leaves_and_comes_back(first[0].partition)
        taken: Counter[bytes] = Counter()
        while len(taken) < COUNT:
            taken.update(message.body for message in taker.take(COUNT))
        taker.give_back(first)
        assert taker.take(1, patience_s=0.05) == []
    assert set(taken.values()) == {1}
