"""The thread that watches calls of the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from infertool.consumer.event import Failure
from infertool.consumer.worker import Caller

# A caller that has been busy with the events it took for longer than this hands back those not begun. Seconds.
HAND_BACK_S = 0.02


class Watchdog:
    """Watches callers, so that no event waits behind a slow call, and no call lasts longer than `timeout_s`.

    Callers that hold several events are looked at every 20 ms, the others ten times within `timeout_s`.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._holders: set[Caller] = set()
        self._roused = threading.Event()
        self._ended = False

    def start(self, callers: Callable[[], Iterable[Caller]]) -> None:
        """Start the thread, which watches `callers()`."""
        threading.Thread(target=self._run, args=(callers,), name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """End the thread once no caller holds several events."""
        self._ended = True
        self._roused.set()

    def hold(self, caller: Caller) -> None:
        """Note that `caller` holds events that must not wait for each other."""
        with self._lock:
            self._holders.add(caller)
        if not self._roused.is_set():
            self._roused.set()

    def release(self, caller: Caller) -> None:
        """Note that `caller` holds no event any more, or one alone."""
        if caller in self._holders:
            with self._lock:
                self._holders.discard(caller)

    def _run(self, callers: Callable[[], Iterable[Caller]]) -> None:
        failure = Failure("infer", "Timeout", f"the model gave no result within {self._timeout_s:g} s", retryable=True)
        while self._holders or not self._ended:
            if not self._holders:
                self._roused.wait(self._timeout_s / 10)
                self._roused.clear()
            time.sleep(HAND_BACK_S)
            with self._lock:
                late = [caller for caller in self._holders if caller.lasted_s() > HAND_BACK_S]
            for caller in late:
                caller.hand_back()
            for caller in callers():
                if caller.running_s() > self._timeout_s:
                    caller.overrun(self._timeout_s, failure)
