"""A small producer for the demo: a constant rate, each event at its own time, whatever happened to those before."""

from __future__ import annotations

import random
import threading
import time

from infertool.brokers.port import Broker
from infertool.errors import ConnectionLostError
from infertool.load import events
from infertool.load.book import SendBook


class Producer(threading.Thread):
    """Sends `rate` events a second to `queue` for `seconds`, and notes them in `book`."""

    def __init__(self, broker: Broker, book: SendBook, *, queue: str, rate: float, seconds: float) -> None:
        super().__init__(name="producer", daemon=True)
        self._broker = broker
        self._book = book
        self._queue = queue
        self._interval_s = 1.0 / rate
        self._total = max(1, round(rate * seconds))
        self._stopped = threading.Event()
        self._rng = random.Random()  # noqa: S311  (sample data)

    def stop(self) -> None:
        """End early."""
        self._stopped.set()

    def run(self) -> None:
        """Send each event when it is due."""
        started = time.monotonic()
        for sequence in range(self._total):
            due = started + sequence * self._interval_s
            if self._stopped.wait(max(0.0, due - time.monotonic())):
                return
            self._send(sequence, due)

    def _send(self, sequence: int, due: float) -> None:
        event_id, message = events.event(sequence, self._queue, self._rng)
        self._book.sent(event_id, due)
        try:
            self._broker.send(message, lambda error: self._book.unsent(event_id) if error else None)
        except ConnectionLostError:
            self._book.unsent(event_id)
