"""Joining results into batched pushes, where the channel understands them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto

from infertool.phoenix import push as batch
from infertool.phoenix.delivery import Push

# How long a channel that did take batches gets single results after a trial that failed. Seconds.
_SUSPENSION_S = 60.0


class _Trust(Enum):
    """Whether the channel understands batches."""

    UNKNOWN = auto()
    ON_TRIAL = auto()
    GIVEN = auto()
    REFUSED = auto()


class PushBatches:
    """Joins at most `most` results, and `max_bytes`, into one push. Thread-safe.

    Whether the channel understands batches is tried with one: until it is confirmed all else goes singly, and when it
    is refused, everything does for the rest of the run; for a minute if the channel took batches before. A channel may
    crash of an event that it does not know, so no more than that one is risked.
    """

    def __init__(self, most: int, max_bytes: int, warn: Callable[[str], None]) -> None:
        self._most = most
        self._max_bytes = max_bytes
        self._warn = warn
        self._lock = threading.Lock()
        self._trust = _Trust.UNKNOWN if most > 1 else _Trust.REFUSED
        self._trial: Push | None = None
        self._known = False
        self._suspended_until = 0.0

    def join(self, results: list[Push]) -> list[Push]:
        """Return pushes of all `results`, joined as far as may be. There is no waiting for more of them."""
        if len(results) > 1 and self._trust is _Trust.GIVEN:
            return [_joined(part) for part in self._parts(results)]
        if len(results) > 1 and self._trust is _Trust.UNKNOWN:
            first = next(self._parts(results))
            trial = self._begin_trial(first) if len(first) > 1 else None
            if trial:
                return [trial, *results[len(first) :]]
        return results

    def confirmed(self) -> None:
        """Note that a batch arrived."""
        self._trust = _Trust.GIVEN
        self._known = True

    def take_apart(self, refused: Push, reason: str) -> list[Push]:
        """Return the single results of a batch that was refused: if one of them is to blame, it fails alone."""
        if refused is self._trial and self._trust is _Trust.ON_TRIAL:
            if self._known:
                self._trust = _Trust.UNKNOWN
                self._suspended_until = time.monotonic() + _SUSPENSION_S
            else:
                self._trust = _Trust.REFUSED
                self._warn(
                    f"results are pushed singly: the channel does not take {batch.EVENT} (publish.batch): {reason}"
                )
        elif self._trust is _Trust.GIVEN:
            self._trust = _Trust.UNKNOWN
        return list(members(refused))

    def _begin_trial(self, results: list[Push]) -> Push | None:
        with self._lock:
            if self._trust is not _Trust.UNKNOWN or time.monotonic() < self._suspended_until:
                return None
            self._trust = _Trust.ON_TRIAL
            self._trial = _joined(results)
            return self._trial

    def _parts(self, results: Sequence[Push]) -> Iterator[list[Push]]:
        part: list[Push] = []
        size = batch.FRAME_BYTES
        for push in results:
            added = len(push.payload) + batch.COMMA_BYTES
            if part and (len(part) == self._most or size + added > self._max_bytes):
                yield part
                part, size = [], batch.FRAME_BYTES
            part.append(push)
            size += added
        yield part


def members(push: Push) -> tuple[Push, ...]:
    """Return the single results in a batch; nothing for any other push."""
    return push.context if isinstance(push.context, tuple) else ()


def _joined(part: list[Push]) -> Push:
    if len(part) == 1:
        return part[0]
    ids = tuple([event_id for push in part for event_id in push.event_ids])
    return Push(batch.EVENT, ids, batch.join([push.payload for push in part]), tuple(part))
