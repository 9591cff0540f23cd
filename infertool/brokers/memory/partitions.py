"""A queue with partitions on the in-process broker, as Kafka's topics are; who has which, its owner decides."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from zlib import crc32

from infertool.brokers.memory.queues import Consumer, Queue, Stored, deliver
from infertool.brokers.partitioned import Lag
from infertool.brokers.port import Capabilities

if TYPE_CHECKING:
    from infertool.brokers.memory.server import Address

# Messages that have the same value of this header are in one partition; those without it are spread in turn.
KEY: Final = "kafka_key"


class PartitionedQueue(Queue):
    """Messages in partitions `NAME/0`, `NAME/1`, ...; each belongs to the consumer of one address, or to none."""

    def __init__(self, capabilities: Capabilities, tokens: Iterator[int], name: str, count: int) -> None:
        super().__init__(capabilities, tokens)
        self.names = [f"{name}/{number}" for number in range(count)]
        self._turns = itertools.cycle(self.names)
        self._owners: dict[str, Address] = {}
        self._holders: dict[str, Consumer] = {}
        self._epochs: defaultdict[str, int] = defaultdict(int)
        # Nothing is delivered of them: they are about to change hands.
        self._leaving: set[str] = set()

    def add(self, stored: Stored) -> None:
        """See `Queue`."""
        key = stored.outgoing.headers.get(KEY)
        stored.partition = next(self._turns) if key is None else self.names[crc32(key.encode()) % len(self.names)]
        super().add(stored)

    def dispatch(self, now_ms: int) -> None:
        """Give waiting messages to those that have their partitions."""
        self._expire(now_ms)
        given: dict[Consumer, list[tuple[str, Stored]]] = {}
        for stored in list(self.waiting):
            taker = self._taker(stored.partition)
            if taker is None or not taker.has_room:
                continue
            self.waiting.remove(stored)
            stored.epoch = self._epochs[stored.partition]
            token = str(next(self.tokens))
            taker.unsettled[token] = stored
            given.setdefault(taker, []).append((token, stored))
        deliver(given)

    def _taker(self, partition: str) -> Consumer | None:
        """Return who has a partition. One that did not have it before begins an epoch."""
        owner = self._owners.get(partition)
        taker = next((each for each in self.consumers if each.place is owner), None)
        if taker is None or partition in self._leaving:
            return None
        if self._holders.get(partition) is not taker:
            self._holders[partition] = taker
            self._epochs[partition] += 1
        return taker

    def assign(self, partition: str, owner: Address) -> None:
        """Let the consumer at an address have a partition."""
        self._owners[partition] = owner

    def leave(self, partition: str) -> Consumer | None:
        """Deliver nothing more of a partition. Return who has it."""
        self._leaving.add(partition)
        return self._holders.get(partition)

    def take_back(self, partition: str) -> Consumer | None:
        """Take a partition from its consumer, which is returned: what is not settled waits again."""
        self._leaving.discard(partition)
        self._owners.pop(partition, None)
        holder = self._holders.pop(partition, None)
        if holder:
            unsettled = [(token, each) for token, each in holder.unsettled.items() if each.partition == partition]
            for token, stored in unsettled:
                del holder.unsettled[token]
                self.insert(stored)
        return holder

    def detach(self, consumer: Consumer) -> None:
        """See `Queue`."""
        super().detach(consumer)
        self._holders = {name: holder for name, holder in self._holders.items() if holder is not consumer}

    def lag(self) -> Lag:
        """Return how far its consumers are behind."""
        held = [*self.waiting, *(stored for each in self.consumers for stored in each.unsettled.values())]
        oldest_ms = min((stored.sent_ms for stored in held), default=None)
        seconds = None if oldest_ms is None else max(0.0, time.time() - oldest_ms / 1000)
        return Lag(messages=len(held), seconds=seconds, lost=0, gap=0)


class Partitions:
    """Decides who has the partitions of one queue. Thread-safe. Consumers hear of it in the calling thread."""

    def __init__(self, queue: PartitionedQueue, lock: threading.RLock) -> None:
        self.names = queue.names
        self._queue = queue
        self._lock = lock

    def assign(self, owner: Address, *partitions: str) -> None:
        """Give partitions that nobody has to the consumer at an address; all of them if none is named."""
        with self._lock:
            for partition in partitions or self.names:
                self._queue.assign(partition, owner)
            self._dispatch()

    def begin_revoke(self, *partitions: str) -> None:
        """Tell consumers that they are about to lose partitions, and deliver nothing more of them."""
        with self._lock:
            holders = {partition: self._queue.leave(partition) for partition in partitions}
        for partition, holder in holders.items():
            if holder and (listener := holder.listener()):
                listener.revoking(frozenset({partition}))

    def end_revoke(self, *partitions: str) -> None:
        """Take partitions away: without `begin_revoke` before, as if the consumer had been thought dead."""
        for partition in partitions:
            with self._lock:
                holder = self._queue.leave(partition)
            if holder and (listener := holder.listener()):
                listener.revoked(frozenset({partition}))
            with self._lock:
                self._queue.take_back(partition)
                self._dispatch()

    def move(self, owner: Address, *partitions: str) -> None:
        """Take partitions from those who have them, and give them to the consumer at an address."""
        self.begin_revoke(*partitions)
        self.end_revoke(*partitions)
        self.assign(owner, *partitions)

    def _dispatch(self) -> None:
        self._queue.dispatch(int(time.time() * 1000))
