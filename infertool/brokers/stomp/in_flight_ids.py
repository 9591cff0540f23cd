"""Message ids that a STOMP subscription holds: ActiveMQ mistakes one message for another with the same id."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from infertool.message import Message

_Place = tuple[str, str]


class InFlightIds:
    """Message ids by STOMP subscription, of a window of `window` messages. Thread-safe.

    ActiveMQ finds what an ACK is for by subscription and message id. Of two messages with one id that a subscription
    holds at once it takes one ACK and refuses the other. A composite SEND to several queues of one wildcard makes such.
    """

    def __init__(self, window: int) -> None:
        self._lock = threading.Lock()
        self._held: set[_Place] = set()
        self._acked: deque[_Place] = deque()
        # An ACK is on its way for no longer than it takes to deliver a window, and to ACK that.
        self._remembered = 2 * window

    def add(self, messages: Iterable[Message]) -> str:
        """Note deliveries. Return an id that the broker may hold twice now, or an empty string."""
        with self._lock:
            for message in messages:
                place = _place(message)
                if place in self._held:
                    return message.id
                self._held.add(place)
        return ""

    def remove(self, messages: Iterable[Message]) -> None:
        """Note that messages were acknowledged. The broker may not know yet, so they are remembered for a while."""
        with self._lock:
            self._acked.extend(map(_place, messages))
            while len(self._acked) > self._remembered:
                self._held.discard(self._acked.popleft())

    def clear(self) -> None:
        """Note that the connection has ended."""
        with self._lock:
            self._held.clear()
            self._acked.clear()


def _place(message: Message) -> _Place:
    return message.native.get("subscription", ""), message.id
