"""Between the threads that receive and the one that shows."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from infertool.feed.arrival import Arrival


class Inbox:
    """Holds about `most` arrivals; who brings more waits, and with it the server."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: list[Arrival] = []
        self._changed = threading.Condition()
        self._closed = False

    def put(self, arrivals: Sequence[Arrival]) -> None:
        """Add a batch, when there is room. Once closed, drop it."""
        with self._changed:
            self._changed.wait_for(self._has_room)
            if not self._closed:
                self._waiting += arrivals
                self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Arrival]:
        """Return all there is, after waiting up to `timeout_s` for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting, timeout_s)
            taken, self._waiting = self._waiting, []
            self._changed.notify_all()
        return taken

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._closed or len(self._waiting) < self._most
