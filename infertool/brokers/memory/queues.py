"""The queues of the in-process broker: their order, the consumer of each message, and unsettled messages.

Nothing here knows connections or threads; `Server` holds its lock around every call.
"""

from __future__ import annotations

import math
import re
from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from infertool.brokers.partitioned import PartitionListener
from infertool.brokers.port import Capabilities, Depth, Match, Selector
from infertool.message import Outgoing

# The priority of a message that has none, as in JMS and AMQP.
_DEFAULT_PRIORITY: Final = 4
# The broker's own selectors: NAME = 'VALUE', joined by AND.
_TERM: Final = re.compile(r"\s*(\w+)\s*=\s*'((?:[^']|'')*)'\s*(?:AND\b|$)")


class RefusedByBroker(Exception):  # noqa: N818  # a broker's answer
    """The broker refuses an operation. The text is its reason."""


class NoQueue(RefusedByBroker):
    """There is no queue of that name, and none is made for it."""


@dataclass(slots=True, eq=False)
class Stored:
    """A message that a queue holds. `deliveries` counts those that began.

    `partition` and `epoch` are those of a queue with partitions: `epoch` is of the newest delivery.
    """

    id: str
    number: int
    outgoing: Outgoing
    sent_ms: int
    arrived_ms: int
    rank: int = 0
    deliveries: int = 0
    partition: str = ""
    epoch: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """What the queue is sorted by: a message that comes back takes its old place."""
        return self.rank, self.number

    @property
    def expires_ms(self) -> float:
        """When the message expires, in milliseconds since the epoch; infinite if it does not."""
        known = self.outgoing.properties
        from_now = math.inf if known.ttl_ms is None else self.arrived_ms + known.ttl_ms
        return min(known.expires_ms or math.inf, from_now)


@dataclass(slots=True, eq=False)
class Consumer:
    """A subscription, as the broker sees it. `deliver` takes messages with the tokens that settle them.

    `place` is the address that it came through. `listener` hears of the partitions that it loses.
    """

    window: int
    exclusive: bool
    accepts: Callable[[Stored], bool]
    deliver: Callable[[list[tuple[str, Stored]]], None]
    unsettled: dict[str, Stored] = field(default_factory=dict)
    place: object = None
    listener: Callable[[], PartitionListener | None] = lambda: None

    @property
    def has_room(self) -> bool:
        """Return True if it may get one more message."""
        return len(self.unsettled) < self.window


class Queue:
    """Messages in the order of delivery, and the consumers that share them in turn."""

    def __init__(self, capabilities: Capabilities, tokens: Iterator[int]) -> None:
        self._capabilities = capabilities
        self.tokens = tokens
        self.waiting: list[Stored] = []
        self.consumers: list[Consumer] = []
        self._enqueued = self._dequeued = 0
        # Nothing that waits expires before. Milliseconds since the epoch.
        self._earliest_expiry: float = math.inf

    def add(self, stored: Stored) -> None:
        """Take a message that was sent."""
        if self._capabilities.priorities:
            priority = stored.outgoing.properties.priority
            stored.rank = -(_DEFAULT_PRIORITY if priority is None else priority)
        self.insert(stored)
        self._enqueued += 1

    def insert(self, stored: Stored) -> None:
        """Have a message wait in its place."""
        insort(self.waiting, stored, key=lambda each: each.order)
        if self._capabilities.expiry:
            self._earliest_expiry = min(self._earliest_expiry, stored.expires_ms)

    def settle(self, consumer: Consumer, token: str) -> None:
        """Remove a message for good."""
        del consumer.unsettled[token]
        self._dequeued += 1

    def detach(self, consumer: Consumer) -> None:
        """Remove a consumer; what it did not settle waits again."""
        self.consumers.remove(consumer)
        for stored in consumer.unsettled.values():
            self.insert(stored)
        consumer.unsettled.clear()

    def drop_transient(self) -> None:
        """Forget what was not to survive a restart."""
        self.waiting = [stored for stored in self.waiting if stored.outgoing.properties.persistent]

    def dispatch(self, now_ms: int) -> None:
        """Give waiting messages to consumers that have room, in turn."""
        self._expire(now_ms)
        given: dict[Consumer, list[tuple[str, Stored]]] = {}
        takers = self._takers()
        position = 0
        while position < self._reach() and any(taker.has_room for taker in takers):
            stored = self.waiting[position]
            taker = next((each for each in takers if each.has_room and each.accepts(stored)), None)
            if taker is None:
                position += 1
                continue
            del self.waiting[position]
            token = str(next(self.tokens))
            taker.unsettled[token] = stored
            given.setdefault(taker, []).append((token, stored))
            takers = [*(each for each in takers if each is not taker), taker]
        if takers and not takers[0].exclusive:
            # The next message is for the consumer whose turn it is.
            self.consumers = takers
        deliver(given)

    def _takers(self) -> list[Consumer]:
        """Return the consumers that get messages: the first exclusive one alone, if there is one."""
        exclusive = [consumer for consumer in self.consumers if consumer.exclusive]
        return exclusive[:1] or self.consumers

    def _reach(self) -> int:
        """Return how many messages from the head are looked at for one that a consumer accepts."""
        reach = self._capabilities.selector_reach
        return len(self.waiting) if reach is None else min(reach, len(self.waiting))

    def _expire(self, now_ms: int) -> None:
        if now_ms < self._earliest_expiry:
            return
        kept = [stored for stored in self.waiting if now_ms < stored.expires_ms]
        self._dequeued += len(self.waiting) - len(kept)
        self.waiting = kept
        self._earliest_expiry = min((stored.expires_ms for stored in kept), default=math.inf)

    def shown(self, accepts: Callable[[Stored], bool], most: int | None, now_ms: int) -> list[Stored]:
        """Return what waits, of the first `most` messages."""
        self._expire(now_ms)
        return [stored for stored in self.waiting[:most] if accepts(stored)]

    def depth(self, now_ms: int) -> Depth:
        """Return the figures of the queue."""
        self._expire(now_ms)
        in_flight = sum(len(consumer.unsettled) for consumer in self.consumers)
        return Depth(
            size=len(self.waiting) + in_flight,
            in_flight=in_flight,
            consumers=len(self.consumers),
            enqueued=self._enqueued,
            dequeued=self._dequeued,
        )


def deliver(given: dict[Consumer, list[tuple[str, Stored]]]) -> None:
    """Give messages to consumers."""
    for taker, messages in given.items():
        taker.deliver(messages)
        for _, stored in messages:
            stored.deliveries += 1


def accepts(selector: Selector | None) -> Callable[[Stored], bool]:
    """Return the test that a selector describes. Raises `RefusedByBroker` for an expression that is none."""
    if selector is None:
        return lambda _stored: True
    if isinstance(selector, Match):
        return lambda stored: _matches(selector, stored)
    wanted = _parsed(selector)
    return lambda stored: all(stored.outgoing.headers.get(name) == value for name, value in wanted)


def _matches(match: Match, stored: Stored) -> bool:
    headers = stored.outgoing.headers
    correlation_id = stored.outgoing.properties.correlation_id
    return (
        stored.id in match.ids
        or (match.correlation_id is not None and correlation_id == match.correlation_id)
        or any(headers.get(name) == value for name, value in match.headers.items())
        or any(headers.get(name, "").startswith(start) for name, start in match.prefixes.items() if name in headers)
    )


def _parsed(expression: str) -> Sequence[tuple[str, str]]:
    terms: list[tuple[str, str]] = []
    position = 0
    while position < len(expression) or not terms:
        term = _TERM.match(expression, position)
        if term is None:
            raise RefusedByBroker(f"the selector {expression!r} is not NAME = 'VALUE' AND ...")
        terms.append((term[1], term[2].replace("''", "'")))
        position = term.end()
    return terms
