"""One worker thread of the executor."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from infertool.pipeline.event import Event, Outcome


class Employer(Protocol):
    """What a worker needs of its executor."""

    def take(self) -> list[Event]:
        """Return the next chunk; empty when the worker should end."""

    def done(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """Accept a finished chunk."""

    def retire(self, worker: Worker) -> None:
        """Strike the worker."""


class Worker(threading.Thread):
    """Takes chunks of events and tries each. It can be abandoned in the middle of a call that hangs."""

    def __init__(self, employer: Employer, attempt: Callable[[Event], Outcome]) -> None:
        super().__init__(name="worker", daemon=True)
        self._employer = employer
        self._attempt = attempt
        self._lock = threading.Lock()
        self._chunk: deque[Event] = deque()
        self._since: float | None = None
        self._outcomes: list[Outcome] = []
        self._abandoned = False

    def run(self) -> None:
        """Work until there is nothing more to take."""
        while chunk := self._employer.take():
            started = time.monotonic()
            self._chunk = deque(chunk)
            self._outcomes = []
            while self._chunk:
                self._since = time.monotonic()
                outcome = self._attempt(self._chunk[0])
                with self._lock:
                    if self._abandoned:
                        return
                    self._since = None
                    self._chunk.popleft()
                    self._outcomes.append(outcome)
            self._employer.done(self._outcomes, time.monotonic() - started)
        self._employer.retire(self)

    def running_s(self) -> float:
        """Return for how long the current call has run, in seconds; 0 when there is none."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def abandon(self) -> tuple[Event, list[Event]] | None:
        """Give up on the current call: return its event and those behind it, or None if it has just ended.

        The outcomes of the events before it are reported here, since the thread may never return.
        """
        with self._lock:
            if self._since is None:
                return None
            self._abandoned = True
            event, *rest = self._chunk
        if self._outcomes:
            self._employer.done(self._outcomes, 0.0)
        return event, rest
