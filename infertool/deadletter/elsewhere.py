"""Replaying to another broker: no transaction spans two, so a send is confirmed before the letter is acked."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence

from infertool.brokers.port import Broker
from infertool.errors import ConnectionLostError
from infertool.message import Outgoing

_LONGEST_S = 300.0
_AGAIN_S = 1.0


class Elsewhere:
    """A connected broker that takes replays. At-least-once: after a fault a batch may be sent again."""

    def __init__(self, broker: Broker, stop: threading.Event, timeout_s: float) -> None:
        self._broker = broker
        self._stop = stop
        self._timeout_s = timeout_s

    def send(self, replays: Sequence[Outgoing]) -> None:
        """Return when the broker has confirmed all. Raises `ServerError`; nothing may be acked then."""
        deadline = time.monotonic() + _LONGEST_S
        while True:
            try:
                self._send_once(replays)
            except ConnectionLostError:
                if self._stop.wait(_AGAIN_S) or time.monotonic() > deadline:
                    raise
            else:
                return

    def _send_once(self, replays: Sequence[Outgoing]) -> None:
        answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        for each in replays:
            self._broker.send(each, answers.put)
        for _ in replays:
            error = answers.get(timeout=self._timeout_s + _AGAIN_S)
            if error is not None:
                raise error
