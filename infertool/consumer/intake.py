"""The thread that takes messages from the broker, where the broker's own reader does not bring them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from infertool.brokers.port import DeliversOnReader, Subscription
from infertool.consumer.guarded import Fail, guarded_thread
from infertool.message import Message

# Longest wait for messages, after which the thread checks whether it should end. Seconds.
POLL_S = 0.1
# Messages that are taken at a time. A quick model has them all before the watchdog looks (20 ms).
_MOST: Final = 200

TakeIn = Callable[[list[Message]], None]


class Intake:
    """Passes the messages of `subscription` on, at most `window` at a time.

    `run` may call the model in the calling thread, which has to be the one that reads; `submit` only queues events.
    `fail` gets an error of that thread.
    """

    def __init__(self, subscription: Subscription, window: int, *, run: TakeIn, submit: TakeIn, fail: Fail) -> None:
        self._subscription = subscription
        self._most = min(window, _MOST)
        self._run = run
        self._submit = submit
        self._fail = fail
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        # The one that reads, where the broker has no reader that delivers.
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. Messages that came before this go to `submit`."""
        if isinstance(self._subscription, DeliversOnReader):
            self._submit(self._subscription.deliver_to(self._run))
        else:
            self._read_on()

    def remove(self, partitions: frozenset[str]) -> list[Message]:  # noqa: ARG002  (that of `WeightedIntake`)
        """Return nothing: no message waits here."""
        return []

    def hand_off_reader(self) -> None:
        """Have another thread read from the broker: the one that does is in `run`, and ends after it."""
        if isinstance(self._subscription, DeliversOnReader):
            self._subscription.hand_off_reader()
        else:
            self._read_on()

    def stop(self, timeout_s: float) -> None:
        """End the thread, if there is one. A broker that delivers on its reader does so until it is closed."""
        with self._lock:
            self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _read_on(self) -> None:
        with self._lock:
            if not self._stopped.is_set():
                before, self._thread = self._thread, guarded_thread(self._receive, "intake", self._fail)
                try:
                    self._thread.start()
                except RuntimeError:  # the system starts no more threads
                    self._thread = before
                    raise

    def _receive(self) -> None:
        me = threading.current_thread()
        while self._thread is me and not self._stopped.is_set():
            if messages := self._subscription.receive(self._most, POLL_S):
                self._run(messages)
