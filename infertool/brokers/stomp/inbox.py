"""Messages between the reader and the consumer of a subscription."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Final

from infertool.brokers.port import OnMessages
from infertool.message import Message

_NONE: Final = 0


class Inbox:
    """A queue of messages of one connection (`epoch`). The broker bounds it: it sends no more than the window."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: deque[Message] = deque()
        self._on_messages: OnMessages | None = None
        self._closed = False
        self.epoch = _NONE

    def begin(self, epoch: int) -> None:
        """Accept messages of `epoch` from now on."""
        with self._changed:
            self._messages.clear()
            self.epoch = epoch

    def drop(self) -> None:
        """Drop what was delivered: the connection was lost, and the broker delivers it again."""
        self.begin(_NONE)

    def close(self) -> None:
        """Drop everything, and have `take` return at once."""
        with self._changed:
            self._closed = True
            self._messages.clear()
            self._changed.notify_all()

    def put(self, messages: list[Message]) -> None:
        """Add a batch, or pass it to the callback of `deliver_to`."""
        with self._changed:
            if self._closed or messages[0].epoch != self.epoch:
                return
            if self._on_messages is None:
                self._messages.extend(messages)
                self._changed.notify()
                return
        self._on_messages(messages)

    def deliver_to(self, on_messages: OnMessages) -> list[Message]:
        """Pass all later batches to `on_messages`; return the messages that are there."""
        with self._changed:
            self._on_messages = on_messages
            gathered = list(self._messages)
            self._messages.clear()
            return gathered

    def take(self, most: int, timeout_s: float) -> list[Message]:
        """Return up to `most` messages, waiting up to `timeout_s` for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._closed, timeout_s)
            taken = [self._messages.popleft() for _ in range(min(most, len(self._messages)))]
            if self._messages:
                self._changed.notify()
            return taken


_Place = tuple[str, str]


class InFlightIds:
    """Message ids by STOMP subscription, of a window of `window` messages. Thread-safe.

    ActiveMQ matches an ACK to its message by subscription and message id. If a subscription holds two messages with
    one id, ActiveMQ accepts one ACK and refuses the other. A composite SEND to several queues that one wildcard matches
    makes such messages.
    """

    def __init__(self, window: int) -> None:
        self._lock = threading.Lock()
        self._held: set[_Place] = set()
        self._acked: deque[_Place] = deque()
        # The broker has an ACK before it has delivered another window and has got the ACKs of that.
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
        """Note that messages were acknowledged. They are kept for a while: the broker may not have the ACK yet."""
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
