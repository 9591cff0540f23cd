"""One thread that calls back later: heartbeats and rejoins must not depend on traffic."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

_Call = Callable[[], None]


class Timers:
    """Calls back in due order, from a thread of its own. Calls must be quick; one that raises ends the thread.

    Then `on_failure` is called, so that nobody waits for timers that will not fire.
    """

    def __init__(self, on_failure: _Call) -> None:
        self._on_failure = on_failure
        self._due: list[tuple[float, int, _Call]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="phoenix-timers", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def after(self, delay_s: float, call: _Call) -> None:
        """Call `call` in `delay_s` seconds. There is no cancelling: the call must see for itself if it is stale."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._numbers), call))
            self._changed.notify()

    def stop(self) -> None:
        """Call nothing any more and end the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            while call := self._next():
                call()
        except BaseException:
            self._on_failure()
            raise

    def _next(self) -> _Call | None:
        with self._changed:
            while not self._stopped:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait)
        return None
