"""Retry topics: where an event waits whose tries are used up, and how long."""

from __future__ import annotations

import time
from collections.abc import Sequence

from infertool.brokers.weighted_queues import WeightedQueue
from infertool.consumer.attempt import Event
from infertool.deadletters import delayed
from infertool.deadletters.delayed import Delay, Past
from infertool.message import Message, Outgoing
from infertool.text.input import parse_duration


def delays_of(queue: WeightedQueue, waits: Sequence[str]) -> list[Delay]:
    """Return the retry topics of a queue, in order: `QUEUE.retry.30s`, ... Raises `UsageError`."""
    return [Delay(f"{queue.name}.retry.{wait}", parse_duration(wait), queue.weight) for wait in waits]


class Delays:
    """The retry topics of all queues: each event waits in one after the other, then it is dead-lettered."""

    def __init__(self, queues: Sequence[WeightedQueue], waits: Sequence[str]) -> None:
        self.all: list[Delay] = []
        self._next: dict[str, Delay] = {}
        for queue in queues:
            source = queue.name
            for delay in delays_of(queue, waits):
                self._next[source] = delay
                self.all.append(delay)
                source = delay.queue
        self.names = frozenset(delay.queue for delay in self.all)

    def after(self, message: Message) -> Delay | None:
        """Return where an event waits next; None if it has waited in all."""
        return self._next.get(message.source)

    def restore(self, events: Sequence[Event]) -> None:
        """Give events that come from retry topics back what they were."""
        for event in events:
            if event.message.source in self.names:
                event.is_delayed = True
                past = delayed.past(event.message)
                event.event_id = past.event_id or event.event_id
                event.earlier_attempts = past.attempts
                event.first_failed_at = past.first_failed_at


def moved(event: Event, delay: Delay) -> Outgoing:
    """Return an event as it is sent to a retry topic."""
    past = Past(event.event_id, event.earlier_attempts + event.attempts, event.first_failed_at)
    return delayed.delayed(event.original, past, delay.queue, int((time.time() + delay.wait_s) * 1000))
