"""When shed clients may come back: each gets a time of its own, and its place is kept until shortly after."""

from __future__ import annotations

import heapq
import random
from collections import defaultdict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from math import ceil

LONGEST_S = 30
"""Longest time that a client is told to wait. Who would have to wait longer is told nothing: it would not be true."""
_PACE = 0.85
"""Part of the class's capacity that is promised."""
_EARLY_S = 0.1
_GRACE_S = 2.0
_GRACE_PART = 0.2
JITTER = 0.2
_MOST = 100_000
_OPEN_SHARE = 4
"""A client has at most this many times the places that are still free: so there is always one for another client."""


@dataclass(slots=True, order=True)
class _Promise:
    until: float
    due: float
    who: tuple[str, Hashable] = field(compare=False)
    is_open: bool = field(default=True, compare=False)


@dataclass(slots=True)
class _Client:
    """The open promises of a client, and the time of its last one."""

    open: int = 0
    end: float = 0.0


class Returns:
    """The promised returns of one class. For one thread."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        # The first to end is the first; those that are not open any more stay until then.
        self._promises: list[_Promise] = []
        self._by_request: defaultdict[tuple[str, Hashable], deque[_Promise]] = defaultdict(deque)
        self._by_client: defaultdict[str, _Client] = defaultdict(_Client)
        self._open = 0
        self._end = 0.0

    def outstanding(self, now: float) -> int:
        """Return the number of clients that are expected back."""
        while self._promises and (self._promises[0].until < now or not self._promises[0].is_open):
            promise = heapq.heappop(self._promises)
            if promise.is_open:
                self._close(promise)
        return self._open

    def turns(self, client: str, now: float) -> int:
        """Return the number of turns that are expected before a new request: its client's own, one of each other."""
        if not self.outstanding(now):
            return 0
        own = self._by_client.get(client)
        return len(self._by_client) + (own.open - 1 if own else 0)

    def is_due(self, client: str, key: Hashable, now: float) -> bool:
        """Return True if this request was told to come back now."""
        found = self._by_request.get((client, key))
        return found is not None and found[0].due - _EARLY_S <= now <= found[0].until

    def take(self, client: str, key: Hashable) -> None:
        """Give up the place of a request that came back."""
        if found := self._by_request.get((client, key)):
            self._close(found[0])

    def remaining_s(self, client: str, key: Hashable, now: float) -> int | None:
        """Return what is left of the time that this very request was told; None if it was told none."""
        found = self._by_request.get((client, key))
        return max(ceil(found[0].due - now), 1) if found else None

    def promise(
        self, client: str, key: Hashable, *, now: float, earliest_s: float, per_s: float, own_part: float
    ) -> int | None:
        """Keep a place and return the seconds until it is due; None if there is none to be had within `LONGEST_S`.

        There is room for a newcomer after `earliest_s`, and for `per_s` of them in a second from then on; of one client
        for `own_part` of these.
        """
        pace = per_s * _PACE
        if pace * LONGEST_S < 1 or not self._may_have_another(client, pace, now):
            return None
        first = now + earliest_s * self._rng.uniform(1, 1 + JITTER)
        following = self._end + self._rng.uniform(1 - JITTER, 1 + JITTER) / pace
        end = max(first, following)
        own = self._by_client.get(client)
        own_end = max(end, own.end + 1 / (pace * own_part)) if own else end
        seconds = max(ceil(own_end - now), 1)
        if seconds > LONGEST_S:
            return None
        self._end = end
        due = now + seconds
        promise = _Promise(due + _GRACE_S + _GRACE_PART * seconds, due, (client, key))
        heapq.heappush(self._promises, promise)
        self._by_request[promise.who].append(promise)
        own = self._by_client[client]
        own.open, own.end = own.open + 1, own_end
        self._open += 1
        return seconds

    def _may_have_another(self, client: str, pace: float, now: float) -> bool:
        free = min(pace * LONGEST_S, _MOST) - self.outstanding(now)
        own = self._by_client.get(client)
        return (own.open if own else 0) < _OPEN_SHARE * free

    def _close(self, promise: _Promise) -> None:
        promise.is_open = False
        self._open -= 1
        same = self._by_request[promise.who]
        same.remove(promise)
        if not same:
            del self._by_request[promise.who]
        client = promise.who[0]
        self._by_client[client].open -= 1
        if not self._by_client[client].open:
            del self._by_client[client]
