"""Moving failed events to the dead-letter queue: dead letter and ack in one broker transaction, many at a time."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from infertool.brokers.port import Broker, Move, Subscription
from infertool.consumer.attempt import Event, FailedEvent
from infertool.consumer.delays import moved
from infertool.consumer.guarded import Fail, guarded_thread
from infertool.consumer.in_flight import InFlight
from infertool.deadletters.record import MOST_DEATHS, Cause, comes_back, dead_letter
from infertool.errors import ConnectionLostError, MoveRefusedError, StaleMessagesError
from infertool.message import Outgoing
from infertool.net.timing import FullJitter
from infertool.telemetry.signals import DeadLettered, Delayed, Observe, Warned
from infertool.text.times import iso


class MoveQueue:
    """Failed events in order of arrival; those that wait are apart. Times are monotonic seconds. Not thread-safe.

    At most `max_moves` events, and `max_bytes` of bodies, are moved together: a move is a disk sync, so many share one.
    """

    def __init__(self, max_moves: int, max_bytes: int) -> None:
        self._max_moves = max_moves
        self._max_bytes = max_bytes
        self._ready: deque[FailedEvent] = deque()
        self._later: list[tuple[float, int, FailedEvent]] = []
        self._numbers = itertools.count()

    def add(self, failed: Iterable[FailedEvent], now: float) -> None:
        """Add events."""
        for each in failed:
            if each.not_before > now:
                heapq.heappush(self._later, (each.not_before, next(self._numbers), each))
            else:
                self._ready.append(each)

    def take(self, now: float) -> list[FailedEvent]:
        """Return the events of the next transaction; none when every event waits."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        batch: list[FailedEvent] = []
        most, size = self._max_moves, 0
        while self._ready and len(batch) < min(most, self._ready[0].together):
            size += len(self._ready[0].event.message.body)
            if batch and size > self._max_bytes:
                break
            most = min(most, self._ready[0].together)
            batch.append(self._ready.popleft())
        return batch

    def wait_s(self, now: float) -> float | None:
        """Return the seconds until there is an event to take; None when the queue is empty."""
        if self._ready:
            return 0.0
        return max(0.0, self._later[0][0] - now) if self._later else None

    def clear(self) -> None:
        """Remove all events."""
        self._ready.clear()
        self._later.clear()


def halve(batch: list[FailedEvent]) -> FailedEvent | None:
    """Note that the transaction of `batch` failed. Return its event if it has only one."""
    if len(batch) == 1:
        batch[0].together = 1
        batch[0].failures += 1
        return batch[0]
    for failed in batch:
        failed.together = len(batch) // 2
    return None


# After a refusal: it may be of any dead letter, as while the broker's store is full, and then they all go on at once.
REFUSED_BACKOFF = FullJitter(base_s=1.0, cap_s=10.0)
# For one over which the connection ended: each further try costs another.
ALONE_BACKOFF = FullJitter(base_s=1.0, cap_s=300.0)
# A broker that is restarted ends one connection, so the first failure tells nothing of the event.
_FAILURES_TOLD = 2
_NAMED = 10


@dataclass(frozen=True, slots=True)
class LetterForm:
    """Writes dead letters for `queue`, with the names of this consumer and its model, as `broker` takes them."""

    queue: str
    consumer: str
    model: str
    broker: Broker

    def fill_in(self, failed: FailedEvent) -> Outgoing:
        """Return what takes the place of an event that fails now: a dead letter, or an event in a retry topic."""
        if failed.delay:
            return moved(failed.event, failed.delay)
        failed_at = iso(time.time())
        cause = Cause(
            event_id=failed.event.event_id,
            request_id=failed.event.request_id or "",
            stage=failed.failure.stage,
            error_type=failed.failure.error_type,
            error=failed.failure.error,
            attempts=failed.event.earlier_attempts + failed.event.attempts,
            failed_at=failed_at,
            first_failed_at=failed.event.first_failed_at or failed_at,
            consumer=self.consumer,
            model=self.model,
            traceback=failed.failure.traceback,
            traceparent=failed.event.try_traceparent,
        )
        return dead_letter(
            failed.event.original,
            cause,
            self.queue,
            self.broker.conventions,
            atomic=self.broker.capabilities.atomic_move,
        )


class DeadLetterWriter:
    """A thread that moves failed events to the dead-letter queue. What cannot be moved stays with the broker.

    `fail` gets an error of the thread that nobody foresaw.
    """

    def __init__(
        self,
        subscription: Subscription,
        in_flight: InFlight,
        *,
        form: LetterForm,
        timeout_s: float,
        observe: Observe,
        on_dead_lettered: Callable[[Sequence[FailedEvent]], None],
        fail: Fail,
    ) -> None:
        self._subscription = subscription
        self._in_flight = in_flight
        self._form = form
        self._queue = form.queue
        self._timeout_s = timeout_s
        self._observe = observe
        self._on_dead_lettered = on_dead_lettered
        can = form.broker.capabilities
        self._waiting = MoveQueue(can.max_moves, can.max_move_bytes)
        self._changed = threading.Condition()
        self._stopped = False
        self._refusals = 0
        # Events came, during a move, that were not refused before.
        self._has_new = False
        # Events that are refused again and again, and where they were to go.
        self._stuck: dict[Event, str] = {}
        self._thread = guarded_thread(self._run, "dead-letters", fail)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def dead_letter(self, failed: Sequence[FailedEvent]) -> None:
        """Queue events. Returns at once. One that came out of a loop of dead letters is left unsettled."""
        looping = [each for each in failed if not each.delay and comes_back(each.event.original, self._queue)]
        if looping:
            self._leave(looping)
        with self._changed:
            self._waiting.add((each for each in failed if each not in looping), time.monotonic())
            self._has_new = self._has_new or any(not each.failures for each in failed)
            self._changed.notify()

    def stop(self, timeout_s: float) -> None:
        """Move the events in the queue, for at most `timeout_s`; the rest stays with the broker."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(timeout_s)
        with self._changed:
            self._waiting.clear()

    def _run(self) -> None:
        while batch := self._next():
            self._move(batch)

    def _next(self) -> list[FailedEvent]:
        """Return the events of the next transaction; none when stopped and every event waits."""
        with self._changed:
            while not (batch := self._waiting.take(now := time.monotonic())) and not self._stopped:
                self._changed.wait(self._waiting.wait_s(now))
            self._has_new = False
            return batch

    def _move(self, batch: list[FailedEvent]) -> None:
        if self._in_flight.revoked and not (batch := self._owned(batch)):
            return
        self._in_flight.moving([failed.event for failed in batch])
        moves = [Move(failed.event.message, self._form.fill_in(failed)) for failed in batch]
        try:
            self._subscription.move(moves, self._timeout_s)
        except StaleMessagesError:
            self._one_by_one(batch, moves)
        except ConnectionLostError as error:
            self._isolate(batch, ALONE_BACKOFF, str(error))
            self._postpone(batch, moves)
        except MoveRefusedError as error:
            self._isolate(batch, REFUSED_BACKOFF, error.remedy)
            self._postpone(batch, moves)
            self._wait_after_refusal(batch, error)
        else:
            self._refusals = 0
            for failed in batch:
                self._stuck.pop(failed.event, None)
            self._moved(batch, moves)

    def _owned(self, batch: list[FailedEvent]) -> list[FailedEvent]:
        """Return what is not revoked."""
        owned = set(self._in_flight.owned([failed.event for failed in batch]))
        for failed in batch:
            if failed.event not in owned:
                self._stuck.pop(failed.event, None)
        return [failed for failed in batch if failed.event in owned]

    def _moved(self, batch: list[FailedEvent], moves: list[Move]) -> None:
        # An equal message that came meanwhile was taken for the one that is moved: it needs a move of its own.
        others = [
            failed
            for failed, move in zip(batch, moves, strict=True)
            if failed.event.message is not move.message and failed.event.message.epoch == move.message.epoch
        ]
        done = [failed for failed in batch if failed not in others]
        counted = set(self._in_flight.dead_lettered([failed.event for failed in done]))
        self._on_dead_lettered(done)
        now = time.monotonic()
        ended = [failed for failed in done if failed.event in counted]
        if dead := [now - failed.event.delivered_at for failed in ended if not failed.delay]:
            self._observe(DeadLettered(dead))
        if delayed := sum(1 for failed in ended if failed.delay):
            self._observe(Delayed(delayed))
        if others:
            self.dead_letter(others)

    def _isolate(self, batch: list[FailedEvent], backoff: FullJitter, reason: str) -> None:
        """Halve the batches until the event that fails is alone; then it waits, longer each time."""
        found = halve(batch)
        if found is None:
            return
        wait_s = backoff.wait(found.failures)
        found.not_before = time.monotonic() + wait_s
        if found.failures < _FAILURES_TOLD:
            return
        target = self._stuck[found.event] = self._target(found)
        stuck = [event.event_id for event, queue in self._stuck.items() if queue == target]
        names = ", ".join(stuck[:_NAMED])
        more = f" and {len(stuck) - _NAMED} more" if len(stuck) > _NAMED else ""
        verb = "moved" if found.delay else "dead-lettered"
        text = f"events that cannot be {verb} to {target}: {names}{more}; the broker says: {reason}"
        self._observe(Warned(f"{text}; they stay with the broker, the next try is in {wait_s:.0f} s"))

    def _leave(self, looping: Sequence[FailedEvent]) -> None:
        self._in_flight.keep([each.event for each in looping])
        self._on_dead_lettered(looping)
        sources = ", ".join(sorted({each.event.message.source for each in looping}))
        self._observe(
            Warned(
                f"{len(looping)} dead letters came back from {sources} and failed again: {self._queue} is where they"
                f" are or came from, or they were dead-lettered {MOST_DEATHS} times in a row, so they stay there; give"
                " this consumer another --dlq, or another --queue"
            )
        )

    def _one_by_one(self, batch: list[FailedEvent], moves: list[Move]) -> None:
        """Move each event of a batch alone: some belong to an earlier connection."""
        if len(batch) == 1:
            self._postpone(batch, moves)
            return
        for failed in batch:
            self._move([failed])

    def _postpone(self, batch: list[FailedEvent], moves: list[Move]) -> None:
        newer = [
            failed for failed, move in zip(batch, moves, strict=True) if self._in_flight.postponed(failed, move.message)
        ]
        if newer:
            self.dead_letter(newer)

    def _target(self, failed: FailedEvent) -> str:
        return failed.delay.queue if failed.delay else self._queue

    def _wait_after_refusal(self, batch: list[FailedEvent], error: MoveRefusedError) -> None:
        """Wait: the broker may refuse all. What it refuses again, alone, holds up no event that comes meanwhile."""
        self._refusals += 1
        wait_s = REFUSED_BACKOFF.wait(self._refusals)
        verb = "move" if all(failed.delay for failed in batch) else "dead-letter"
        targets = ", ".join(sorted({self._target(failed) for failed in batch}))
        self._observe(Warned(f"the broker refused to {verb} to {targets}: {error.remedy}; waiting {wait_s:.1f} s"))
        may_be_alone = len(batch) == 1 and batch[0].failures >= _FAILURES_TOLD
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or (may_be_alone and self._has_new), wait_s)
