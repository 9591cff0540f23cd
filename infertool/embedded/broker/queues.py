"""Queues, topics and their subscriptions: order by priority and arrival, expiry, fair dispatch within windows. No I/O.

A topic subscription has a mailbox of its own, which is a queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from infertool.embedded.broker import destinations
from infertool.embedded.broker.destinations import Destination, DestinationError
from infertool.embedded.broker.messages import StoredMessage
from infertool.embedded.figures import QueueFigures

Taken = list[tuple[str, StoredMessage]]
# The client's id and the subscription's name.
Durable = tuple[str, str]


class AckMode(StrEnum):
    """The values of SUBSCRIBE's ack header."""

    AUTO = "auto"
    CLIENT = "client"
    INDIVIDUAL = "client-individual"


class Consumer(Protocol):
    """Writes messages to a client."""

    @property
    def ready(self) -> bool:
        """True if it accepts messages now; False if the client does not read."""

    def deliver(self, subscription: Subscription, message: StoredMessage) -> bool:
        """Write the message; return True if the client will ack it."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One SUBSCRIBE. `unacked` holds its client's messages by ack key, in the order of delivery.

    It takes messages from `queues`: several for a wildcard. `lines` are the header lines of each of its deliveries.
    `serial` is unique in its connection. The first `exclusive` subscription of a queue gets all messages. Messages for
    a `durable` one are kept while its client is away.
    """

    id: str
    consumer: Consumer
    mode: AckMode
    prefetch: int
    serial: int
    exclusive: bool = False
    durable: Durable | None = None
    selector: str = ""
    lines: bytes = b""
    matches: Callable[[StoredMessage], bool] | None = None
    queues: list[Queue] = field(default_factory=list)
    unacked: dict[str, StoredMessage] = field(default_factory=dict)
    active: bool = True

    @property
    def ready(self) -> bool:
        """True if another message fits into the window."""
        return len(self.unacked) < self.prefetch and self.consumer.ready

    def take(self, key: str) -> Taken:
        """Remove and return the messages that an ACK of `key` settles: with `ack:client` also all previous ones."""
        if self.mode is not AckMode.CLIENT:
            return [(key, self.unacked.pop(key))]
        taken: Taken = []
        for held in self.unacked.items():
            taken.append(held)
            if held[0] == key:
                break
        for held_key, _ in taken:
            del self.unacked[held_key]
        return taken

    def put_back(self, taken: Iterable[tuple[str, StoredMessage]]) -> None:
        """Undo `take`, and restore the order of delivery."""
        held = sorted([*taken, *self.unacked.items()], key=lambda item: item[1].delivery)
        self.unacked = dict(held)


HIGHEST_PRIORITY = 9


@dataclass(slots=True)
class Counts:
    """The counters of a queue. Waits are from arrival to ack, in milliseconds."""

    enqueued: int = 0
    dequeued: int = 0
    dispatched: int = 0
    expired: int = 0
    body_bytes_held: int = 0
    waited_ms: int = 0
    shortest_wait_ms: int | None = None
    longest_wait_ms: int = 0


class Queue:
    """A queue, or the mailbox of a topic subscription or browser, which has no dead-letter queue.

    `size` counts waiting and unacked messages. `limit` is a mailbox's maximum; beyond it the oldest message is dropped.
    """

    def __init__(self, name: str, *, dead_letters: str = "", limit: int | None = None) -> None:
        self.name = name
        self.dead_letters = dead_letters
        self.subscriptions: deque[Subscription] = deque()
        self._exclusive: list[Subscription] = []
        self.counts = Counts()
        self.size = 0
        self.waiting = 0
        self._limit = limit
        # One line for each priority, the highest first; each in the order of arrival.
        self._lines: list[deque[StoredMessage]] = [deque() for _ in range(HIGHEST_PRIORITY + 1)]
        self._sequence = 0
        self._any_expires = False
        self._expired: list[StoredMessage] = []

    def add(self, subscription: Subscription) -> None:
        """Attach a subscription."""
        self.subscriptions.append(subscription)
        if subscription.exclusive:
            self._exclusive.append(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Detach a subscription."""
        self.subscriptions.remove(subscription)
        if subscription.exclusive:
            self._exclusive.remove(subscription)

    @property
    def in_flight(self) -> int:
        """The number of messages that clients hold unacked, also in transactions."""
        return self.size - self.waiting

    def figures(self) -> QueueFigures:
        """Return its figures."""
        counts = self.counts
        return QueueFigures(
            self.name, self.waiting, self.in_flight, len(self.subscriptions),
            enqueued=counts.enqueued, dequeued=counts.dequeued, expired=counts.expired,
        )  # fmt: skip

    def put(self, message: StoredMessage) -> None:
        """Add a message at the end of its priority's line."""
        self._sequence += 1
        message.sequence = self._sequence
        message.queue = self
        self._any_expires = self._any_expires or message.expires > 0
        self._lines[HIGHEST_PRIORITY - message.priority].append(message)
        self.size += 1
        self.waiting += 1
        self.counts.enqueued += 1
        self.counts.body_bytes_held += len(message.body)
        if self._limit is not None and self.waiting > self._limit:
            self._drop_oldest()

    def give_back(self, messages: Iterable[StoredMessage]) -> None:
        """Put unacked messages back at their original position, marked as redelivered."""
        by_priority: dict[int, list[StoredMessage]] = {}
        for message in messages:
            message.returns += 1
            by_priority.setdefault(message.priority, []).append(message)
        for priority, returned in by_priority.items():
            self.waiting += len(returned)
            _merge(self._lines[HIGHEST_PRIORITY - priority], returned)

    def settle(self, message: StoredMessage, now_ms: int) -> None:
        """Count a delivered message as done."""
        counts = self.counts
        wait = now_ms - message.arrived_ms
        counts.dequeued += 1
        counts.waited_ms += wait
        counts.longest_wait_ms = max(wait, counts.longest_wait_ms)
        if counts.shortest_wait_ms is None or wait < counts.shortest_wait_ms:
            counts.shortest_wait_ms = wait
        self._forget(message)

    def dispatch(self, now_ms: int) -> None:
        """Deliver to the subscriptions in turn until no message or no window is left."""
        if any(subscription.matches for subscription in self.subscriptions):
            self._dispatch_selectively(now_ms)
        else:
            self._dispatch_in_turn(now_ms)

    def sweep(self, now_ms: int) -> None:
        """Remove expired messages that wait for delivery."""
        if not self._any_expires:
            return
        for line in self._lines:
            kept = [message for message in line if not self._expire(message, now_ms)]
            line.clear()
            line.extend(kept)
        self._any_expires = any(message.expires > 0 for line in self._lines for message in line)

    def take_expired(self) -> list[StoredMessage]:
        """Return the messages that were removed as expired since the last call."""
        expired, self._expired = self._expired, []
        return expired

    def browse(self) -> list[StoredMessage]:
        """Return waiting and unacked messages, in the order of delivery."""
        held = [held for subscription in self.subscriptions for held in subscription.unacked.values()]
        found = [message for message in held if message.queue is self]
        found += [message for line in self._lines for message in line]
        return sorted(found, key=lambda message: (-message.priority, message.sequence))

    def _dispatch_in_turn(self, now_ms: int) -> None:
        subscriptions = self.subscriptions
        for line in self._lines:
            while line:
                subscription = self._next_ready()
                if subscription is None:
                    return
                message = line.popleft()
                if not (message.expires and self._expire(message, now_ms)):
                    self._deliver(subscription, message, now_ms)
                    subscriptions.rotate(-1)

    def _next_ready(self) -> Subscription | None:
        """Rotate a ready subscription to the front and return it. An exclusive one is the only candidate."""
        if self._exclusive:
            return self._exclusive[0] if self._exclusive[0].ready else None
        for _ in range(len(self.subscriptions)):
            if self.subscriptions[0].ready:
                return self.subscriptions[0]
            self.subscriptions.rotate(-1)
        return None

    def _dispatch_selectively(self, now_ms: int) -> None:
        """Offer each waiting message to each subscription: a selector may match any of them."""
        for line in self._lines:
            for _ in range(len(line)):
                message = line.popleft()
                if message.expires and self._expire(message, now_ms):
                    continue
                if not self._offer(message, now_ms):
                    line.append(message)

    def _offer(self, message: StoredMessage, now_ms: int) -> bool:
        for subscription in self._exclusive[:1] or self.subscriptions:
            if subscription.ready and (subscription.matches is None or subscription.matches(message)):
                self._deliver(subscription, message, now_ms)
                # A subscription that got a message moves to the end of the rotation.
                self.subscriptions.remove(subscription)
                self.subscriptions.append(subscription)
                return True
        return False

    def _deliver(self, subscription: Subscription, message: StoredMessage, now_ms: int) -> None:
        self.waiting -= 1
        self.counts.dispatched += 1
        if not subscription.consumer.deliver(subscription, message):
            self.settle(message, now_ms)

    def _expire(self, message: StoredMessage, now_ms: int) -> bool:
        if not message.expired(now_ms):
            return False
        self.waiting -= 1
        self.counts.expired += 1
        self._forget(message)
        self._expired.append(message)
        return True

    def _drop_oldest(self) -> None:
        line = max((line for line in self._lines if line), key=lambda line: -line[0].sequence)
        self.waiting -= 1
        self._forget(line.popleft())

    def _forget(self, message: StoredMessage) -> None:
        self.size -= 1
        self.counts.body_bytes_held -= len(message.body)


def _merge(line: deque[StoredMessage], returned: list[StoredMessage]) -> None:
    """Merge returned messages into a line, in the order of arrival."""
    last = max(message.sequence for message in returned)
    while line and line[0].sequence < last:
        returned.append(line.popleft())
    line.extendleft(sorted(returned, key=lambda message: -message.sequence))


# Maximum of waiting messages of a slow subscriber; beyond it the oldest ones are dropped.
MAILBOX_LIMIT = 10_000


@dataclass(slots=True)
class _Kept:
    """A durable subscription, with or without a connected client."""

    destination: Destination
    selector: str
    mailbox: Queue


class Topics:
    """All topic subscriptions of a broker."""

    def __init__(self) -> None:
        self._exact: dict[str, list[Queue]] = {}
        self._patterns: list[tuple[str, Queue]] = []
        self._kept: dict[Durable, _Kept] = {}

    def add(self, destination: Destination, subscription: Subscription) -> None:
        """Attach a mailbox for messages that are published from now on; a durable subscription gets its kept one.

        Raises `DestinationError` for a durable subscription that is in use.
        """
        mailbox = self._kept_mailbox(destination, subscription) or Queue(destination.name, limit=MAILBOX_LIMIT)
        mailbox.subscriptions.append(subscription)
        subscription.queues.append(mailbox)
        if subscription.durable:
            if subscription.durable in self._kept:
                return
            self._kept[subscription.durable] = _Kept(destination, subscription.selector, mailbox)
        if destination.is_pattern:
            self._patterns.append((destination.name, mailbox))
        else:
            self._exact.setdefault(destination.name, []).append(mailbox)

    def _kept_mailbox(self, destination: Destination, subscription: Subscription) -> Queue | None:
        if subscription.durable is None or (kept := self._kept.get(subscription.durable)) is None:
            return None
        _check_unused(subscription.durable, kept)
        if (kept.destination, kept.selector) == (destination, subscription.selector):
            return kept.mailbox
        # With another topic or selector it is a new subscription (JMS 1.1, 6.11.1).
        self.forget(subscription.durable)
        return None

    def forget(self, durable: Durable) -> None:
        """Delete a durable subscription. Raises `DestinationError` while it is in use."""
        kept = self._kept.get(durable)
        if kept is None:
            client, name = durable
            raise DestinationError(f"No durable subscription exists for client: {client} and subscriptionName: {name}")
        _check_unused(durable, kept)
        del self._kept[durable]
        self._drop(kept.mailbox)

    def publish(self, name: str, message: StoredMessage) -> list[Queue]:
        """Put a copy into every mailbox of topic `name`; return those mailboxes."""
        mailboxes = [*self._exact.get(name, ())]
        mailboxes += [mailbox for pattern, mailbox in self._patterns if destinations.matches(pattern, name)]
        for mailbox in mailboxes:
            mailbox.put(message.twin())
        return mailboxes

    def remove(self, subscription: Subscription) -> None:
        """Delete the subscription's mailboxes with their messages, unless it is durable."""
        if subscription.durable is None:
            for mailbox in subscription.queues:
                self._drop(mailbox)

    def _drop(self, gone: Queue) -> None:
        self._patterns = [entry for entry in self._patterns if entry[1] is not gone]
        remaining = [other for other in self._exact.pop(gone.name, ()) if other is not gone]
        if remaining:
            self._exact[gone.name] = remaining


def _check_unused(durable: Durable, kept: _Kept) -> None:
    if kept.mailbox.subscriptions:
        client, name = durable
        raise DestinationError(f"Durable consumer is in use for client: {client} and subscriptionName: {name}")
