"""Outcomes on their way from the workers to the router."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

from infertool.consumer.event import Outcome

OnOutcomes = Callable[[Sequence[Outcome]], None]


class Reports:
    """Passes outcomes to `on_outcomes`, which may block, in the calling thread or in one of its own.

    `learn` is called with the events' outcomes and the seconds that the model was busy with them.
    """

    def __init__(self, on_outcomes: OnOutcomes, learn: Callable[[Sequence[Outcome], float], None]) -> None:
        self._on_outcomes = on_outcomes
        self._learn = learn
        self._late: queue.SimpleQueue[tuple[Sequence[Outcome], float] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="late-reports", daemon=True)
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def report(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """Report in the calling thread. Drops the outcomes once stopped: the broker has those events back."""
        if self._ended.is_set():
            return
        # A model that is away says nothing about its speed, nor does an event that it never saw.
        if spent_s and not any(outcome.is_held for outcome in outcomes):
            self._learn(outcomes, spent_s)
        self._on_outcomes(outcomes)

    def report_later(self, outcomes: Sequence[Outcome], spent_s: float) -> None:
        """Report soon, from another thread. Does not block."""
        self._late.put((outcomes, spent_s))

    def stop(self, deadline: float) -> bool:
        """Report what is there until `deadline` (monotonic), then nothing more. Return False if something was left."""
        self._late.put(None)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._ended.set()
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (report := self._late.get()) is not None:
            self.report(*report)
