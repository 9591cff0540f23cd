"""Several queues with weights: one subscription each, whose messages go to workers by weight.

Each subscription has a window of its own, so a queue that is empty leaves its share to the others, and one whose
messages are stuck stops no other. What came waits here, unacked and in its order, until workers are about to need it.
So weights hold whatever the window is, and a message of a heavy queue passes those of light ones that wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Final, Protocol

from infertool.brokers.partitioned import Joins, Partitioned, PartitionListener
from infertool.brokers.port import Broker, Conventions, DeliversOnReader, Move, Subscription, Transaction
from infertool.brokers.weighted_queues import WeightedQueue
from infertool.consumer import intake
from infertool.consumer.attempt import FailedEvent
from infertool.consumer.guarded import Fail, guarded_thread
from infertool.consumer.waiting import Arrived, Delayed
from infertool.deadletters.delayed import Delay
from infertool.message import Message

# Messages of one queue that are here, for each one in progress: all in progress may be of one queue, and a weight needs
# others of it at hand while the broker delivers more.
AT_HAND: Final = 2
# Longest wait for a change, after which the thread looks by itself. Seconds.
_LOOK_S: Final = 0.1


class Weighted:
    """Messages of several queues, taken in turns by weight. Not thread-safe.

    Each queue that has messages has a turn after 1/weight; one that begins to have some gets no turns for the time
    before. A queue with a wait (`waits_s`) has messages once they are due.
    """

    def __init__(self, weights: Sequence[float], waits_s: Sequence[float] = ()) -> None:
        self._steps = [1 / weight for weight in weights]
        self._turns = [0.0] * len(weights)
        self._now = 0.0
        waits_s = waits_s or [0.0] * len(weights)
        self._waiting: list[Arrived | Delayed] = [Delayed(wait_s) if wait_s else Arrived() for wait_s in waits_s]
        # Those that had something to take at the last look.
        self._ready = [False] * len(weights)
        # The newest epoch of each partition.
        self._epochs: dict[str, int] = {}

    def add(self, index: int, messages: Sequence[Message]) -> None:
        """Add messages of one queue. Those of an earlier epoch are forgotten: the broker delivers them again."""
        now = time.time()
        self._look(now)
        self._waiting[index].add([message for message in messages if self._is_current(message)], now)
        self._look(now)

    def _look(self, now: float) -> None:
        """Note which queues have something to take."""
        for index, waiting in enumerate(self._waiting):
            is_ready = waiting.is_ready(now)
            if is_ready and not self._ready[index]:
                self._turns[index] = max(self._turns[index], self._now + self._steps[index])
            self._ready[index] = is_ready

    def _is_current(self, message: Message) -> bool:
        epoch = self._epochs.get(message.partition, 0)
        if message.epoch > epoch:
            self._epochs[message.partition] = message.epoch
            if epoch:
                self.remove({message.partition})
        return message.epoch >= epoch

    def remove(self, partitions: Container[str]) -> list[Message]:
        """Remove and return the messages of `partitions`."""
        return [message for waiting in self._waiting for message in waiting.remove(partitions)]

    def take(self, most: int) -> list[Message]:
        """Return up to `most` messages."""
        taken: list[Message] = []
        now = time.time()
        self._look(now)
        full = [index for index, is_ready in enumerate(self._ready) if is_ready]
        while full and len(taken) < most:
            index = min(full, key=self._turns.__getitem__)
            taken.append(self._waiting[index].pop())
            self._now = self._turns[index]
            self._turns[index] += self._steps[index]
            if not self._waiting[index].is_ready(now):
                self._ready[index] = False
                full.remove(index)
        return taken

    def __len__(self) -> int:
        """Return how many messages wait."""
        return sum(map(len, self._waiting))


class WeightedSubscription:
    """See `infertool.brokers.port.Subscription`: acks go to the subscription that delivered the message.

    `window` is the number of messages in progress, of all queues. `on_settled` is called after acks.
    Dead letters are moved by a writer for each subscription: messages of several never share a move.
    """

    def __init__(
        self,
        queues: Sequence[WeightedQueue],
        subscriptions: Sequence[Subscription],
        conventions: Conventions,
        window: int,
        waits_s: Sequence[float] = (),
    ) -> None:
        self.queues = queues
        self.waits_s = waits_s
        self.window = window
        self.on_settled: Callable[[], None] | None = None
        self.subscriptions = subscriptions
        self._covers = conventions.covers
        self._numbers = {queue.name: number for number, queue in enumerate(queues)}

    def number(self, message: Message) -> int:
        """Return the number of the subscription that delivered a message."""
        found = self._numbers.get(message.source)
        if found is None:  # one of those that a pattern names
            found = next((n for n, queue in enumerate(self.queues) if self._covers(queue.name, message.source)), 0)
            self._numbers[message.source] = found
        return found

    def receive(self, max_messages: int, timeout_s: float) -> list[Message]:
        """See `infertool.brokers.port.Subscription`. Messages come through `WeightedIntake` only."""
        raise NotImplementedError

    def ack(self, messages: Sequence[Message]) -> None:
        """See `infertool.brokers.port.Subscription`."""
        for number, those in self._by_number(messages).items():
            self.subscriptions[number].ack(those)
        if self.on_settled:
            self.on_settled()

    def _by_number(self, messages: Sequence[Message]) -> dict[int, list[Message]]:
        by_number: dict[int, list[Message]] = {}
        for message in messages:
            by_number.setdefault(self.number(message), []).append(message)
        return by_number

    @property
    def partitions(self) -> int | None:
        """See `infertool.brokers.partitioned.Joins`: None until each has its own."""
        counts = [each.partitions for each in self.subscriptions if isinstance(each, Joins)]
        return None if None in counts else sum(filter(None, counts))

    def listen(self, listener: PartitionListener) -> None:
        """See `infertool.brokers.partitioned.Partitioned`."""
        for subscription in self.subscriptions:
            if isinstance(subscription, Partitioned):
                subscription.listen(listener)

    def release(self, messages: Sequence[Message]) -> None:
        """See `infertool.brokers.partitioned.Partitioned`."""
        for number, those in self._by_number(messages).items():
            subscription = self.subscriptions[number]
            if isinstance(subscription, Partitioned):
                subscription.release(those)

    def move(self, moves: Sequence[Move], timeout_s: float) -> None:
        """See `infertool.brokers.port.Subscription`. All messages are of one queue."""
        self.subscriptions[self.number(moves[0].message)].move(moves, timeout_s)

    def start_move(self, moves: Sequence[Move], timeout_s: float) -> Transaction:
        """See `infertool.brokers.port.Subscription`. All messages are of one queue."""
        return self.subscriptions[self.number(moves[0].message)].start_move(moves, timeout_s)


def subscribe(
    broker: Broker, queues: Sequence[WeightedQueue], window: int, delays: Sequence[Delay] = ()
) -> Subscription:
    """Subscribe to each queue, with a window of its own, for `window` messages in progress; and to retry topics.

    Raises `RefusedError`.
    """
    if len(queues) == 1 and not delays:
        return broker.subscribe(queues[0].name, window=window)
    every = [*queues, *(WeightedQueue(delay.queue, delay.weight) for delay in delays)]
    waits_s = [0.0] * len(queues) + [delay.wait_s for delay in delays]
    subscriptions = [broker.subscribe(queue.name, window=AT_HAND * window) for queue in every]
    return WeightedSubscription(every, subscriptions, broker.conventions, window, waits_s)


class Writer(Protocol):
    """Moves failed events to the dead-letter queue."""

    def start(self) -> None:
        """Start the thread."""

    def dead_letter(self, failed: Sequence[FailedEvent]) -> None:
        """Queue events. Returns at once."""

    def stop(self, timeout_s: float) -> None:
        """Move the events in the queue, for at most `timeout_s`."""


class Writers:
    """A writer of dead letters for each subscription: a refused move holds up no other queue."""

    def __init__(self, subscription: WeightedSubscription, make: Callable[[Subscription], Writer]) -> None:
        self._number = subscription.number
        self._writers = [make(each) for each in subscription.subscriptions]

    def start(self) -> None:
        """Start the threads."""
        for writer in self._writers:
            writer.start()

    def dead_letter(self, failed: Sequence[FailedEvent]) -> None:
        """Queue events. Returns at once."""
        by_number: dict[int, list[FailedEvent]] = {}
        for each in failed:
            by_number.setdefault(self._number(each.event.message), []).append(each)
        for number, those in by_number.items():
            self._writers[number].dead_letter(those)

    def stop(self, timeout_s: float) -> None:
        """Move the events in the queues, each for at most `timeout_s`; the rest stays with the broker."""
        stopping = [threading.Thread(target=writer.stop, args=(timeout_s,), daemon=True) for writer in self._writers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()


class WeightedIntake:
    """Passes messages on by weight, no more than `room` says that workers are about to need."""

    def __init__(
        self,
        subscription: WeightedSubscription,
        *,
        submit: intake.TakeIn,
        room: Callable[[], int],
        fail: Fail,
    ) -> None:
        self._subscriptions = subscription.subscriptions
        self._window = AT_HAND * subscription.window
        subscription.on_settled = self.look
        self.on_arrived: Callable[[], None] | None = None
        """Called when messages have come."""
        self._submit = submit
        self._fail = fail
        self._room = room
        self._lock = threading.Lock()
        self._messages = Weighted([queue.weight for queue in subscription.queues], subscription.waits_s)
        self._changed = threading.Event()
        self._stopped = threading.Event()
        self._threads = [guarded_thread(self._pass_on, "weighted-intake", fail)]

    def start(self) -> None:
        """Begin."""
        for number, subscription in enumerate(self._subscriptions):
            if isinstance(subscription, DeliversOnReader):
                self._arrived(number, subscription.deliver_to(partial(self._arrived, number)))
            else:
                receive = partial(self._receive, number, subscription)
                self._threads.append(guarded_thread(receive, f"intake-{number}", self._fail))
        for thread in self._threads:
            thread.start()

    def look(self) -> None:
        """Look whether there is room for more: workers took events, or events were settled."""
        if not self._changed.is_set():
            self._changed.set()

    def remove(self, partitions: frozenset[str]) -> list[Message]:
        """Remove and return the messages of `partitions` that wait here."""
        with self._lock:
            return self._messages.remove(partitions)

    def hand_off_reader(self) -> None:
        """Do nothing: the reader never calls the model."""

    def stop(self, timeout_s: float) -> None:
        """End the threads. A broker that delivers on its reader does so until it is closed."""
        self._stopped.set()
        self._changed.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def _arrived(self, number: int, messages: list[Message]) -> None:
        if messages:
            with self._lock:
                self._messages.add(number, messages)
            self._changed.set()
            if self.on_arrived:
                self.on_arrived()

    def _receive(self, number: int, subscription: Subscription) -> None:
        while not self._stopped.is_set():
            self._arrived(number, subscription.receive(self._window, intake.POLL_S))

    def _pass_on(self) -> None:
        while not self._stopped.is_set():
            self._changed.wait(_LOOK_S)
            self._changed.clear()
            while not self._stopped.is_set() and (room := self._room()) > 0:
                with self._lock:
                    messages = self._messages.take(room)
                if not messages:
                    break
                self._submit(messages)
