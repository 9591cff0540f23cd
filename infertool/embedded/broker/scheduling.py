"""Keeping messages that are delivered later, and again. No I/O.

As ActiveMQ 5.17.2 does with `schedulerSupport="true"` (measured): each message of a period has an id of its own.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field, replace

from infertool.embedded.broker.destinations import Destination
from infertool.embedded.broker.messages import Schedule, StoredMessage


@dataclass(order=True, slots=True)
class _Job:
    due_ms: int
    number: int
    sent_ms: int = field(compare=False)
    destination: Destination = field(compare=False)
    message: StoredMessage = field(compare=False)
    schedule: Schedule = field(compare=False)


class Scheduler:
    """What is not due yet."""

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._jobs: list[_Job] = []
        self._numbers = itertools.count(1)

    @property
    def next_ms(self) -> int | None:
        """When the next message is due, in milliseconds since the epoch."""
        return self._jobs[0].due_ms if self._jobs else None

    def add(self, destination: Destination, message: StoredMessage, schedule: Schedule, now_ms: int) -> None:
        """Keep a message for later."""
        message.headers["scheduledJobId"] = message.id
        due_ms = now_ms + schedule.delay_ms
        heapq.heappush(self._jobs, _Job(due_ms, next(self._numbers), now_ms, destination, message, schedule))

    def take_due(self, now_ms: int) -> list[tuple[Destination, StoredMessage]]:
        """Return what is due now, in order."""
        due = []
        while self._jobs and self._jobs[0].due_ms <= now_ms:
            job = heapq.heappop(self._jobs)
            due.append((job.destination, self._occurrence(job)))
            if job.schedule.repeat:
                later = replace(job.schedule, repeat=job.schedule.repeat - 1)
                heapq.heappush(self._jobs, replace(job, due_ms=job.due_ms + later.period_ms, schedule=later))
        return due

    def _occurrence(self, job: _Job) -> StoredMessage:
        _, message = job.message.copies(2)
        if job.schedule.period_ms:
            message.id = message.headers["message-id"] = f"{self._identity}:1:0:0:{next(self._numbers)}"
        if message.expires:
            # The time to live counts from the delivery.
            message.expires += job.due_ms - job.sent_ms
            message.headers["expires"] = str(message.expires)
        message.arrived_ms = job.due_ms
        return message
