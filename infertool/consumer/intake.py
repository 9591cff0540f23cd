"""Takes messages from a subscription: on the broker's reader if the adapter can, else on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from infertool.brokers.port import DeliversOnReader, Subscription
from infertool.message import Message

# Longest wait for messages, after which the thread checks whether it should end. Seconds.
POLL_S = 0.1

TakeIn = Callable[[list[Message]], None]


class Intake:
    """Passes the messages of `subscription` on, at most `window` at a time.

    `run` may call the model in the calling thread, which has to be the broker's reader; `submit` only queues events.
    """

    def __init__(self, subscription: Subscription, window: int, *, run: TakeIn, submit: TakeIn) -> None:
        self._subscription = subscription
        self._window = window
        self._run = run
        self._submit = submit
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. Messages that came before this go to `submit`."""
        if isinstance(self._subscription, DeliversOnReader):
            self._submit(self._subscription.deliver_to(self._run))
            return
        self._thread = threading.Thread(target=self._receive, name="intake", daemon=True)
        self._thread.start()

    def hand_off_reader(self) -> None:
        """Have another thread read from the broker if the one that does is in `run`."""
        if isinstance(self._subscription, DeliversOnReader):
            self._subscription.hand_off_reader()

    def stop(self, timeout_s: float) -> None:
        """End the thread, if there is one. A broker that delivers on its reader does so until it is closed."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _receive(self) -> None:
        while not self._stopped.is_set():
            if messages := self._subscription.receive(self._window, POLL_S):
                self._submit(messages)
