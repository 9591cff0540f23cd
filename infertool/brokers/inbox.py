"""The messages of a subscription between the thread that reads them and those that receive them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from infertool.brokers.port import OnMessages
from infertool.message import Message

_NONE: Final = 0


class Inbox:
    """Messages of one epoch. Their number is bounded by the window, which the broker keeps."""

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
        """Forget what was delivered: the connection was lost, the broker delivers it again."""
        self.begin(_NONE)

    def close(self) -> None:
        """Forget everything, and have `take` return at once."""
        with self._changed:
            self._closed = True
            self._messages.clear()
            self._changed.notify_all()

    def put(self, messages: list[Message], epoch: int | None = None) -> None:
        """Add a batch, or hand it on. It came in `epoch`, if its messages do not tell."""
        with self._changed:
            if self._closed or (messages[0].epoch if epoch is None else epoch) != self.epoch:
                return
            if self._on_messages is None:
                self._messages.extend(messages)
                self._changed.notify()
                return
        self._on_messages(messages)

    def deliver_to(self, on_messages: OnMessages) -> list[Message]:
        """Hand all later batches to `on_messages`, and return what has gathered so far."""
        with self._changed:
            self._on_messages = on_messages
            gathered = list(self._messages)
            self._messages.clear()
            return gathered

    def take(self, most: int, timeout_s: float) -> list[Message]:
        """Return up to `most` messages, waiting for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._closed, timeout_s)
            taken = [self._messages.popleft() for _ in range(min(most, len(self._messages)))]
            if self._messages:
                self._changed.notify()
            return taken
