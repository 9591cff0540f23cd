"""Moving failed events to the dead-letter queue: dead letter and ack in one broker transaction, many at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from infertool.backoff import FullJitter
from infertool.brokers.port import Move, Subscription
from infertool.deadletter.record import Cause, dead_letter
from infertool.errors import ConnectionLostError, MoveRefusedError, StaleMessagesError
from infertool.message import Outgoing
from infertool.pipeline.book import Book
from infertool.pipeline.event import Dead, iso
from infertool.telemetry.observer import DeadLettered, Observe, Warned

# A commit is a disk sync, so many moves share one; the page of a default ActiveMQ is 200 messages.
MOST_MOVES = 100
# A transaction is held in the broker's memory until its commit.
MOST_BYTES = 8_388_608
REFUSED_BACKOFF = FullJitter(base_s=1.0, cap_s=30.0)


class Undertaker:
    """A thread that moves events to `queue`. What cannot be moved now stays with the broker and comes back."""

    def __init__(
        self,
        subscription: Subscription,
        book: Book,
        *,
        queue: str,
        consumer: str,
        model: str,
        timeout_s: float,
        observe: Observe,
        on_buried: Callable[[Sequence[Dead]], None],
    ) -> None:
        self._subscription = subscription
        self._book = book
        self._queue = queue
        self._consumer = consumer
        self._model = model
        self._timeout_s = timeout_s
        self._observe = observe
        self._on_buried = on_buried
        self._waiting: deque[Dead] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._refusals = 0
        self._thread = threading.Thread(target=self._run, name="dead-letters", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def bury(self, dead: Sequence[Dead]) -> None:
        """Queue events. Returns at once."""
        with self._changed:
            self._waiting.extend(dead)
            self._changed.notify()

    def stop(self, timeout_s: float) -> None:
        """Bury what waits, for at most `timeout_s`; the rest stays with the broker."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(timeout_s)
        with self._changed:
            self._waiting.clear()

    def _run(self) -> None:
        while batch := self._next():
            self._move(batch)

    def _next(self) -> list[Dead]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            batch: list[Dead] = []
            size = 0
            while self._waiting and len(batch) < MOST_MOVES:
                size += len(self._waiting[0].event.message.body)
                if batch and size > MOST_BYTES:
                    break
                batch.append(self._waiting.popleft())
            return batch

    def _move(self, batch: list[Dead]) -> None:
        moves = [Move(dead.event.message, self._letter(dead)) for dead in batch]
        try:
            self._subscription.move(moves, self._timeout_s)
        except StaleMessagesError:
            self._one_by_one(batch, moves)
        except ConnectionLostError:
            self._postpone(batch, moves)
        except MoveRefusedError as error:
            self._postpone(batch, moves)
            self._wait_after_refusal(error)
        else:
            self._refusals = 0
            self._book.buried([dead.event for dead in batch])
            self._on_buried(batch)
            now = time.monotonic()
            self._observe(DeadLettered([now - dead.event.delivered_at for dead in batch]))

    def _one_by_one(self, batch: list[Dead], moves: list[Move]) -> None:
        """Find out which of a batch belong to an earlier connection."""
        if len(batch) == 1:
            self._postpone(batch, moves)
            return
        for dead in batch:
            self._move([dead])

    def _postpone(self, batch: list[Dead], moves: list[Move]) -> None:
        newer = [dead for dead, move in zip(batch, moves, strict=True) if self._book.postponed(dead, move.message)]
        if newer:
            self.bury(newer)

    def _wait_after_refusal(self, error: MoveRefusedError) -> None:
        self._refusals += 1
        wait_s = REFUSED_BACKOFF.wait(self._refusals)
        self._observe(
            Warned(f"the broker refused to dead-letter to {self._queue}: {error.reason}; waiting {wait_s:.1f} s")
        )
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, wait_s)

    def _letter(self, dead: Dead) -> Outgoing:
        failed_at = iso(time.time())
        cause = Cause(
            event_id=dead.event.event_id,
            request_id=dead.event.request_id or "",
            stage=dead.failure.stage,
            error_type=dead.failure.error_type,
            error=dead.failure.error,
            attempts=dead.event.attempts,
            failed_at=failed_at,
            first_failed_at=dead.event.first_failed_at or failed_at,
            consumer=self._consumer,
            model=self._model,
        )
        return dead_letter(dead.event.message, cause, self._queue)
