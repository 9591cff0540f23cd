"""Timers: delayed calls from one thread."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

_Call = Callable[[], None]


class Timers:
    """Calls functions when their delay is over, in the order of their due times, from a thread of its own.

    A call that blocks delays the calls behind it. A call that raises ends the thread; `on_failure` is called then.
    """

    def __init__(self, name: str, on_failure: _Call | None = None) -> None:
        self._on_failure = on_failure
        self._due: list[tuple[float, int, _Call]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def after(self, delay_s: float, call: _Call) -> None:
        """Call `call` in `delay_s` seconds, unless stopped before. A call cannot be cancelled."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._numbers), call))
            self._changed.notify()

    def stop(self) -> None:
        """Drop all pending calls. A call in progress continues."""
        with self._changed:
            self._stopped = True
            self._due.clear()
            self._changed.notify()

    def join(self) -> None:
        """Wait for the end of the thread, after `stop`. Returns at once on the thread itself."""
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            while call := self._next():
                call()
        except BaseException:
            if self._on_failure:
                self._on_failure()
            raise

    def _next(self) -> _Call | None:
        with self._changed:
            while not self._stopped:
                wait_s = self._due[0][0] - time.monotonic() if self._due else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait_s)
        return None
