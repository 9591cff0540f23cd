"""Messages whose move failed: they are received again, once there is a connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from infertool.message import Message


class Returns:
    """Passes messages to `give_back`, which has them received again: at once while `is_connected`, else later.

    Consumers outlive connections. Without one the next move would fail at once, and so would those after it.
    """

    def __init__(self, give_back: Callable[[Sequence[Message]], None], is_connected: Callable[[], bool]) -> None:
        self._give_back = give_back
        self._is_connected = is_connected
        self._lock = threading.Lock()
        self._waiting: list[Message] = []

    def add(self, messages: Sequence[Message]) -> None:
        """Take messages whose move failed."""
        with self._lock:
            self._waiting += messages
        if self._is_connected():
            self.connected()

    def connected(self) -> None:
        """Give back what waits: there is a connection."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if waiting:
            self._give_back(waiting)
