"""When shed clients may come back: each gets a time of its own, and its place is kept until shortly after."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Hashable
from dataclasses import dataclass
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


@dataclass(slots=True)
class _Promise:
    who: tuple[str, Hashable]
    due: float
    until: float
    is_open: bool = True


class Returns:
    """The promised returns of one class, in the order of their times. For one thread."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._promises: deque[_Promise] = deque()
        self._by_request: defaultdict[tuple[str, Hashable], deque[_Promise]] = defaultdict(deque)
        self._by_client: defaultdict[str, int] = defaultdict(int)
        self._open = 0
        self._end = 0.0

    def outstanding(self, now: float) -> int:
        """Return the number of clients that are expected back."""
        while self._promises and (self._promises[0].until < now or not self._promises[0].is_open):
            promise = self._promises.popleft()
            if promise.is_open:
                self._close(promise)
        return self._open

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

    def promise(self, client: str, key: Hashable, *, now: float, earliest_s: float, per_s: float) -> int | None:
        """Keep a place and return the seconds until it is due; None if there is none to be had within `LONGEST_S`.

        There is room for a newcomer after `earliest_s`, and for `per_s` of them in a second from then on.
        """
        pace = per_s * _PACE
        if pace * LONGEST_S < 1 or not self._may_have_another(client, pace, now):
            return None
        first = now + earliest_s * self._rng.uniform(1, 1 + JITTER)
        following = self._end + self._rng.uniform(1 - JITTER, 1 + JITTER) / pace
        end = max(first, following)
        seconds = max(ceil(end - now), 1)
        if seconds > LONGEST_S:
            return None
        self._end = end
        due = now + seconds
        promise = _Promise((client, key), due, due + _GRACE_S + _GRACE_PART * seconds)
        self._promises.append(promise)
        self._by_request[promise.who].append(promise)
        self._by_client[client] += 1
        self._open += 1
        return seconds

    def _may_have_another(self, client: str, pace: float, now: float) -> bool:
        free = min(pace * LONGEST_S, _MOST) - self.outstanding(now)
        return self._by_client.get(client, 0) < _OPEN_SHARE * free

    def _close(self, promise: _Promise) -> None:
        promise.is_open = False
        self._open -= 1
        same = self._by_request[promise.who]
        same.remove(promise)
        if not same:
            del self._by_request[promise.who]
        client = promise.who[0]
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]
