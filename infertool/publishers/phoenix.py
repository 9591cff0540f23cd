"""The Phoenix publisher: pushes to a channel, and joins results into batches where the channel understands them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from functools import partial
from typing import Any, Generic, TypeVar

from infertool.net.timing import Timers
from infertool.phoenix.delivery import ConfirmedBy, Delivery, Push, PushResult
from infertool.phoenix.push import (
    BATCH_BYTES,
    BATCH_COMMA_BYTES,
    BATCH_EVENT,
    DeliveryClosedError,
    announces_batches,
    join_documents,
)
from infertool.publishers.port import Confirmation, OnSettled, Publication, PublisherClosedError, Rejection
from infertool.settings.tree import PhoenixSettings, PublishSettings
from infertool.telemetry.signals import ConnectionChanged, Flow, Observe, Unconfirmed, Warned

T = TypeVar("T")
# The publications in a push: several in a batch.
Members = tuple[Publication[T], ...]

_RESULT = "new_result"
# Results of this many bytes are pushed together with publish.batch auto: viewers get large ones soon, in small pushes.
_MOST_BYTES = 64 * 1024
# After a batch on trial failed, a channel that may know batches gets single results for this time. Seconds.
_SUSPENSION_S = 60.0


class PhoenixPublisher(Generic[T]):
    """Publishes to the service topic of a Phoenix server. Results share pushes of at most `publish.batch` results.

    A batch that is refused is taken apart, and its results are pushed singly.
    """

    name = "Phoenix"

    def __init__(self, phoenix: PhoenixSettings, publish: PublishSettings, observe: Observe) -> None:
        def warn(text: str) -> None:
            observe(Warned(text))

        self.batch = publish.room
        most_bytes = min(publish.max_bytes, _MOST_BYTES) if publish.batch == "auto" else publish.max_bytes
        self._batches: Batches[T] = Batches(
            publish.most_together, most_bytes, warn, if_announced=publish.batch == "auto"
        )
        self._delivery: Delivery[Members[T]] = Delivery(
            phoenix,
            on_results=self._take,
            on_connection=lambda event: observe(ConnectionChanged("phoenix", event)),
            on_flow=lambda paused: observe(Flow(paused)),
            on_warning=warn,
            on_join=self._batches.joined,
        )
        self._on_settled: OnSettled[T] | None = None
        # Pushes the results of refused batches: a push may wait for room, which the thread that reads must not do.
        self._later = Timers("phoenix-singles", self._delivery.stop)
        self._changed = threading.Condition()
        self._apart = 0

    def start(self) -> None:
        """Connect and join. Raises `UnreachableError`, `RefusedError`, `JoinRefusedError`, `SettingsError`."""
        self._delivery.start()
        self._later.start()

    def report_to(self, on_settled: OnSettled[T]) -> None:
        """Report to `on_settled`, from the threads of the connection."""
        self._on_settled = on_settled

    def publish(self, publications: Sequence[Publication[T]], *, crashes: int = 0) -> None:
        """Push; blocks while the window is full and while Phoenix says pause."""
        try:
            compare = self._delivery.lacks(_RESULT)
            self._delivery.push(self._batches.join(publications, compare=compare), crashes=crashes)
        except DeliveryClosedError as error:
            raise PublisherClosedError(str(error)) from None

    def widen(self, window: int) -> None:
        """See `infertool.publishers.port.Publisher`."""
        self._delivery.widen(window)

    def pending(self) -> Unconfirmed:
        """Return the number of pushes without a result, and the age of the oldest."""
        return self._delivery.pending()

    def stop(self) -> None:
        """Take nothing any more, and wake the threads that wait in `publish`."""
        self._delivery.stop()
        self._later.stop()

    def drain(self, timeout_s: float) -> bool:
        """Wait until every push has its result, also those of batches that are taken apart meanwhile."""
        deadline = time.monotonic() + timeout_s
        while self._delivery.drain(max(0.0, deadline - time.monotonic())):
            with self._changed:
                if not self._apart:
                    return True
                if not self._changed.wait_for(lambda: not self._apart, max(0.0, deadline - time.monotonic())):
                    return False
        return False

    def close(self, timeout_s: float) -> None:
        """Disconnect within about `timeout_s`."""
        self.stop()
        self._delivery.close(timeout_s)

    def _take(self, results: Sequence[PushResult[Members[T]]]) -> None:
        """Take results from the delivery's threads."""
        confirmations: list[Confirmation[T]] = []
        rejections: list[Rejection[T]] = []
        for result in results:
            members = result.push.context
            if result.rejection is None:
                confirmed_by = result.confirmed_by or ConfirmedBy.NONE
                confirmations += [Confirmation(publication, confirmed_by) for publication in members]
                if len(members) > 1:
                    self._batches.confirmed()
            elif len(members) == 1:
                rejections.append(Rejection(_pushed(result.push), result.rejection, result.crashes))
            else:
                self._take_apart(result.push, result.rejection, result.crashes)
        if self._on_settled and (confirmations or rejections):
            self._on_settled(confirmations, rejections)

    def _take_apart(self, refused: Push[Members[T]], reason: str, crashes: int) -> None:
        singles = self._batches.take_apart(refused, reason, crashes)
        with self._changed:
            self._apart += 1
        self._later.after(0.0, partial(self._push_singly, singles, crashes))

    def _push_singly(self, singles: Sequence[Push[Members[T]]], crashes: int) -> None:
        with contextlib.suppress(DeliveryClosedError):  # the events stay with the broker
            self._delivery.push(singles, crashes=crashes)
        with self._changed:
            self._apart -= 1
            self._changed.notify_all()


class _Trust(Enum):
    """Whether the channel understands batches."""

    UNANNOUNCED = auto()
    UNKNOWN = auto()
    ON_TRIAL = auto()
    GIVEN = auto()
    REFUSED = auto()


class Batches(Generic[T]):
    """Joins results into pushes of at most `most` results and `max_bytes`. Thread-safe.

    With `if_announced` there are batches only where the response to the join `announces_batches`.

    One batch is a trial: until it is confirmed, all other results are pushed singly, since a channel may crash over an
    event that it does not know. When the trial is refused, results go singly for the rest of the run; for a minute if
    the channel took batches before, or ended over another push.
    """

    def __init__(self, most: int, max_bytes: int, warn: Callable[[str], None], *, if_announced: bool = False) -> None:
        self._most = most
        self._max_bytes = max_bytes
        self._warn = warn
        self._lock = threading.Lock()
        self._if_announced = if_announced
        unproven = _Trust.UNANNOUNCED if if_announced else _Trust.UNKNOWN
        self._trust = unproven if most > 1 else _Trust.REFUSED
        self._trial: Push[Members[T]] | None = None
        self._known = False
        self._suspended_until = 0.0

    def join(self, publications: Sequence[Publication[T]], *, compare: bool = False) -> list[Push[Members[T]]]:
        """Return pushes of all `publications`, results first and in few batches. Does not wait for more of them.

        With `compare` the first result goes singly: if it passes, it tells a result that ends the channel from a
        channel without a clause for single results. A batch that passes shows neither.
        """
        if len(publications) == 1 or self._trust in {_Trust.REFUSED, _Trust.UNANNOUNCED}:
            return [_single(publication) for publication in publications]
        results = [publication for publication in publications if publication.event == _RESULT]
        others = [_single(publication) for publication in publications if publication.event != _RESULT]
        singles, rest = (results[:1], results[1:]) if compare else ([], results)
        return [*map(_single, singles), *self._join(rest), *others]

    def joined(self, response: Any) -> None:
        """Note what the channel says at a join. Another server may answer otherwise than the one before it."""
        if not self._if_announced:
            return
        with self._lock:
            if not announces_batches(response):
                self._trust = _Trust.UNANNOUNCED
            elif self._trust is _Trust.UNANNOUNCED:
                self._trust = _Trust.UNKNOWN

    def confirmed(self) -> None:
        """Note that a batch was confirmed."""
        self._trust = _Trust.GIVEN
        self._known = True

    def take_apart(self, refused: Push[Members[T]], reason: str, crashes: int = 0) -> list[Push[Members[T]]]:
        """Return a push for each result of a batch that was refused: a result that is the cause fails alone.

        `crashes` is `PushResult.crashes`: one is that of another push, beside which the batch was unconfirmed.
        """
        if refused is self._trial and self._trust is _Trust.ON_TRIAL:
            if self._known or crashes == 1:
                self._trust = _Trust.UNKNOWN
                self._suspended_until = time.monotonic() + _SUSPENSION_S
            else:
                self._trust = _Trust.REFUSED
                self._warn(
                    f"results are pushed singly: the channel does not take {BATCH_EVENT} (publish.batch): {reason}"
                )
        elif self._trust is _Trust.GIVEN:
            self._trust = _Trust.UNKNOWN
        return [_single(publication) for publication in refused.context]

    def _join(self, results: Sequence[Publication[T]]) -> list[Push[Members[T]]]:
        if len(results) > 1 and self._trust is _Trust.GIVEN:
            return [_push(part) for part in self._parts(results)]
        if len(results) > 1 and self._trust is _Trust.UNKNOWN:
            first = next(self._parts(results))
            trial = self._begin_trial(first) if len(first) > 1 else None
            if trial:
                return [trial, *(_single(result) for result in results[len(first) :])]
        return [_single(result) for result in results]

    def _begin_trial(self, results: Sequence[Publication[T]]) -> Push[Members[T]] | None:
        with self._lock:
            if self._trust is not _Trust.UNKNOWN or time.monotonic() < self._suspended_until:
                return None
            self._trust = _Trust.ON_TRIAL
            self._trial = _push(results)
            return self._trial

    def _parts(self, results: Sequence[Publication[T]]) -> Iterator[list[Publication[T]]]:
        part: list[Publication[T]] = []
        size = BATCH_BYTES
        for result in results:
            added = len(result.payload) + BATCH_COMMA_BYTES
            if part and (len(part) == self._most or size + added > self._max_bytes):
                yield part
                part, size = [], BATCH_BYTES
            part.append(result)
            size += added
        yield part


def _push(part: Sequence[Publication[T]]) -> Push[Members[T]]:
    if len(part) == 1:
        return _single(part[0])
    payload = join_documents([publication.payload for publication in part])
    return Push(BATCH_EVENT, tuple([publication.event_id for publication in part]), payload, tuple(part))


def _single(publication: Publication[T]) -> Push[Members[T]]:
    return Push(publication.event, (publication.event_id,), publication.payload, (publication,), publication.reduced)


def _pushed(single: Push[Members[T]]) -> Publication[T]:
    """Return the publication as it was pushed last: the delivery may have left out its payload."""
    (publication,) = single.context
    return publication.without_payload() if publication.reduced and not single.reduced else publication
