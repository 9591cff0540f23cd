"""Results of equal requests, which need neither queue nor model.

Requests are equal if model, content type and body are, byte for byte. Only results are kept, no failures.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from infertool.gateway.request import CACHE, InferRequest, Outcome, State

HIT: Final = "hit"
# Bytes of all results together; a larger number of entries does not help beyond.
MOST_BYTES: Final = 256 * 1024 * 1024

_Key = bytes


class ResultCache:
    """At most `entries` results, each for `ttl_s`; the one asked for longest ago goes first. For one thread."""

    def __init__(self, entries: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries = entries
        self._ttl_s = ttl_s
        self._clock = clock
        self._kept: OrderedDict[_Key, tuple[float, Outcome]] = OrderedDict()
        self._bytes = 0
        self.hits = 0
        self.misses = 0

    def knows(self, request: InferRequest) -> bool:
        """Return True if there is the result of an equal request."""
        found = self._kept.get(_key(request))
        return found is not None and found[0] > self._clock()

    def find(self, request: InferRequest) -> Outcome | None:
        """Return the result of an equal request, marked as a hit; None if there is none."""
        key = _key(request)
        found = self._kept.get(key)
        if found is not None and found[0] <= self._clock():
            self._forget(key)
            found = None
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return replace(found[1], processing_ms=None, headers={**found[1].headers, CACHE: HIT})

    def keep(self, request: InferRequest, outcome: Outcome) -> None:
        """Keep the result of a request, if it is one, and not from here."""
        size = len(outcome.body)
        if outcome.state is not State.SUCCEEDED or outcome.is_cached or size > MOST_BYTES:
            return
        key = _key(request)
        if key in self._kept:
            self._forget(key)
        self._kept[key] = self._clock() + self._ttl_s, outcome
        self._bytes += size
        while len(self._kept) > self._entries or self._bytes > MOST_BYTES:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: _Key) -> None:
        _, outcome = self._kept.pop(key)
        self._bytes -= len(outcome.body)


def _key(request: InferRequest) -> _Key:
    # No name has a line break.
    digest = hashlib.sha256(f"{request.model}\n{request.queue}\n{request.content_type}\n".encode())
    digest.update(request.body)
    return digest.digest()
