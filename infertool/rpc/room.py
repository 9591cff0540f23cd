"""Room for requests that the broker has not confirmed."""

from __future__ import annotations

import threading


class Room:
    """A number of places. Thread-safe; a semaphore of which several are taken, or given back, at once."""

    def __init__(self, places: int) -> None:
        self._places = self._free = places
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0

    def take(self, timeout_s: float) -> bool:
        """Take a place. Return False if there is none within `timeout_s`."""
        with self._lock:
            if not self._free:
                self._waiting += 1
                try:
                    self._changed.wait_for(lambda: self._free, timeout_s)
                finally:
                    self._waiting -= 1
            if not self._free:
                return False
            self._free -= 1
            return True

    def take_some(self, most: int) -> int:
        """Take as many places as are free, and at most `most`; return how many."""
        with self._lock:
            taken = min(most, self._free)
            self._free -= taken
            return taken

    def wait_until_free(self, timeout_s: float) -> bool:
        """Wait until no place is taken. Return False if one still is after `timeout_s`."""
        with self._lock:
            self._waiting += 1
            try:
                return self._changed.wait_for(lambda: self._free == self._places, timeout_s)
            finally:
                self._waiting -= 1

    def give(self, places: int = 1) -> None:
        """Give places back."""
        with self._lock:
            self._free += places
            if self._waiting:
                self._changed.notify_all()
