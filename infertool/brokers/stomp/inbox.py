"""Where the reader leaves messages and the consumer fetches them, in batches."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from infertool.message import Message

_NONE: Final = 0


class Inbox:
    """Messages of one epoch. Their number is bounded by the window, which the broker keeps."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: deque[Message] = deque()
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

    def put(self, messages: list[Message]) -> None:
        """Add a batch."""
        with self._changed:
            if not self._closed and messages[0].epoch == self.epoch:
                self._messages.extend(messages)
                self._changed.notify()

    def take(self, most: int, timeout_s: float) -> list[Message]:
        """Return up to `most` messages, waiting for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._closed, timeout_s)
            taken = [self._messages.popleft() for _ in range(min(most, len(self._messages)))]
            if self._messages:
                self._changed.notify()
            return taken
