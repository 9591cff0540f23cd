"""Messages of one queue that wait here until workers are about to need them."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Container, Sequence

from infertool.deadletters.delayed import due_s
from infertool.message import Message


class Arrived:
    """Messages in the order of their arrival. Not thread-safe."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._messages)

    def add(self, messages: Sequence[Message], now: float) -> None:  # noqa: ARG002  (that of `Delayed`)
        """Add messages that arrive now."""
        self._messages.extend(messages)

    def is_ready(self, now: float) -> bool:  # noqa: ARG002  (that of `Delayed`)
        """Return True if `pop` may be called."""
        return bool(self._messages)

    def pop(self) -> Message:
        """Remove and return the next one."""
        return self._messages.popleft()

    def remove(self, partitions: Container[str]) -> list[Message]:
        """Remove and return the messages of `partitions`."""
        removed = [message for message in self._messages if message.partition in partitions]
        if removed:
            self._messages = deque(message for message in self._messages if message.partition not in partitions)
        return removed


class Delayed:
    """Messages of a retry topic, each of which is ready when it is due. Times are seconds since the epoch.

    None waits longer than `wait_s` after its arrival: the clock of the consumer that sent it may be ahead.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._numbers = itertools.count()
        self._messages: list[tuple[float, int, Message]] = []

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._messages)

    def add(self, messages: Sequence[Message], now: float) -> None:
        """Add messages that arrive now."""
        for message in messages:
            due = min(due_s(message), now + self._wait_s)
            heapq.heappush(self._messages, (due, next(self._numbers), message))

    def is_ready(self, now: float) -> bool:
        """Return True if `pop` may be called."""
        return bool(self._messages) and self._messages[0][0] <= now

    def pop(self) -> Message:
        """Remove and return the next one."""
        return heapq.heappop(self._messages)[2]

    def remove(self, partitions: Container[str]) -> list[Message]:
        """Remove and return the messages of `partitions`."""
        removed = [message for _, _, message in sorted(self._messages) if message.partition in partitions]
        if removed:
            self._messages = [each for each in self._messages if each[2].partition not in partitions]
            heapq.heapify(self._messages)
        return removed
