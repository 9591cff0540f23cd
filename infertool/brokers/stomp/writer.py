"""The one thread that writes on a connection."""

from __future__ import annotations

import threading
from collections.abc import Callable

HEARTBEAT = b"\n"


class Outbox:
    """What waits to be written. What gathers during one write goes out in the next, in one piece; idle, at once."""

    def __init__(self) -> None:
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        # Apart, so that whoever waits for room does not take the writer's call.
        self._taken = threading.Condition(lock)
        self._waiting: list[bytes] = []
        self._closed = False
        self.beat_s: float | None = None

    def put(self, data: bytes) -> None:
        """Queue whole frames. After `close` they are dropped: the connection they belong to has ended."""
        with self._changed:
            if not self._closed:
                self._waiting.append(data)
                self._changed.notify()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until the writer has taken all. True after `close`."""
        with self._taken:
            return self._taken.wait_for(lambda: not self._waiting, timeout_s)

    def close(self) -> None:
        """Wake the writer for the last time."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify()
            self._taken.notify_all()

    def start_heartbeat(self, beat_s: float) -> None:
        """Have `take` return a heartbeat whenever nothing else was written for `beat_s`."""
        with self._changed:
            self.beat_s = beat_s
            self._changed.notify()

    def take(self) -> bytes:
        """Wait, and return what to write next; b"" at the end."""
        with self._changed:
            if not self._waiting and not self._closed:
                self._changed.wait(self.beat_s)
            if self._closed:
                return b""
            data = b"".join(self._waiting) or HEARTBEAT
            self._waiting.clear()
            self._taken.notify_all()
            return data


def write_all(outbox: Outbox, write: Callable[[bytes], None]) -> None:
    """Write until the outbox closes. Raises OSError."""
    while data := outbox.take():
        write(data)
