"""Moving failed events to the dead-letter queue: dead letter and ack in one broker transaction, many at a time."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from infertool.backoff import FullJitter
from infertool.brokers.port import Move, Subscription
from infertool.deadletter.record import Cause, comes_back, dead_letter
from infertool.errors import ConnectionLostError, MoveRefusedError, StaleMessagesError
from infertool.message import Outgoing
from infertool.pipeline.book import Book
from infertool.pipeline.event import Dead, Event, iso
from infertool.pipeline.movequeue import MoveQueue, suspect
from infertool.telemetry.observer import DeadLettered, Observe, Warned

# After a refusal: it may be of any dead letter, as while the broker's store is full, and then they all go on at once.
REFUSED_BACKOFF = FullJitter(base_s=1.0, cap_s=10.0)
# For one over which the connection ended: each further try costs another.
ALONE_BACKOFF = FullJitter(base_s=1.0, cap_s=300.0)
# A broker that is restarted ends one connection, so the first failure tells nothing of the event.
_FAILURES_TOLD = 2
_NAMED = 10


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
        self._waiting = MoveQueue()
        self._changed = threading.Condition()
        self._stopped = False
        self._refusals = 0
        self._stuck: dict[Event, None] = {}
        self._thread = threading.Thread(target=self._run, name="dead-letters", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def bury(self, dead: Sequence[Dead]) -> None:
        """Queue events. Returns at once. One that came out of a loop of dead letters is left unsettled."""
        looping = [each for each in dead if comes_back(each.event.message, self._queue)]
        if looping:
            self._leave(looping)
        with self._changed:
            self._waiting.add((each for each in dead if each not in looping), time.monotonic())
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
        """Return the events of the next transaction; none when stopped and only those are left that wait longer."""
        with self._changed:
            while not (batch := self._waiting.take(now := time.monotonic())) and not self._stopped:
                self._changed.wait(self._waiting.wait_s(now))
            return batch

    def _move(self, batch: list[Dead]) -> None:
        moves = [Move(dead.event.message, self._letter(dead)) for dead in batch]
        try:
            self._subscription.move(moves, self._timeout_s)
        except StaleMessagesError:
            self._one_by_one(batch, moves)
        except ConnectionLostError as error:
            self._suspect(batch, ALONE_BACKOFF, str(error))
            self._postpone(batch, moves)
        except MoveRefusedError as error:
            self._suspect(batch, REFUSED_BACKOFF, error.reason)
            self._postpone(batch, moves)
            self._wait_after_refusal(error)
        else:
            self._refusals = 0
            for dead in batch:
                self._stuck.pop(dead.event, None)
            self._book.buried([dead.event for dead in batch])
            self._on_buried(batch)
            now = time.monotonic()
            self._observe(DeadLettered([now - dead.event.delivered_at for dead in batch]))

    def _suspect(self, batch: list[Dead], backoff: FullJitter, reason: str) -> None:
        """Look for the one that fails: in halves; it waits then, longer each time."""
        guilty = suspect(batch)
        if guilty is None:
            return
        wait_s = backoff.wait(guilty.failures)
        guilty.not_before = time.monotonic() + wait_s
        if guilty.failures < _FAILURES_TOLD:
            return
        self._stuck[guilty.event] = None
        names = ", ".join(event.event_id for event in itertools.islice(self._stuck, _NAMED))
        more = f" and {len(self._stuck) - _NAMED} more" if len(self._stuck) > _NAMED else ""
        text = f"events that cannot be dead-lettered to {self._queue}: {names}{more}; the broker's word: {reason}"
        self._observe(Warned(f"{text}; they stay with the broker, the next try is in {wait_s:.0f} s"))

    def _leave(self, looping: Sequence[Dead]) -> None:
        self._book.keep([each.event for each in looping])
        self._on_buried(looping)
        sources = ", ".join(sorted({each.event.message.source for each in looping}))
        self._observe(
            Warned(
                f"{len(looping)} dead letters came back from {sources} and failed again: {self._queue} is where they"
                " are or came from, so they stay there; give this consumer another --dlq, or another --queue"
            )
        )

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
            traceback=dead.failure.traceback,
        )
        return dead_letter(dead.event.message, cause, self._queue)
