"""Wrong credentials by address: more than a rate allows are answered with 429.

Right ones pass at any time, so nobody who shares an address with others can lock them out. There is nothing to win by
trying: secrets have 256 random bits, and tokens a signature.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from infertool.gateway.problem import Problem, Reason
from infertool.gateway.rate import NANOSECONDS, Rate

MOST: Final = 16_384
"""Addresses that are remembered; beyond, the one whose last failure is the longest ago is forgotten."""
_LOOKS: Final = 2


class FailedCredentials:
    """For one event loop. Without a rate every failure is answered as it is. `clock` is monotonic, in nanoseconds."""

    def __init__(self, rate: Rate | None, *, most: int = MOST, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._rate = rate
        self._most = most
        self._clock = clock
        # When the burst of an address is whole again, in the units of `Rate`; the latest failure is the last.
        self._full_at: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def failed(self, address: str, refusal: Problem) -> Problem:
        """Count a failure; return what is answered: `refusal`, or 429 where there were too many."""
        if self._rate is None:
            return refusal
        now_ns = self._clock()
        full_at, wait_ns = self._rate.take(self._full_at.get(address, 0), now_ns)
        self._full_at[address] = full_at
        self._full_at.move_to_end(address)
        self._forget_some(self._rate, now_ns)
        if not wait_ns:
            return refusal
        return Problem(
            Reason.TOO_MANY_FAILURES,
            "credentials that are right are taken at any time",
            retry_after_s=-(-wait_ns // NANOSECONDS),
            members={"retry_after_ms": -(-wait_ns // 1_000_000)},
        )

    def _forget_some(self, rate: Rate, now_ns: int) -> None:
        for _ in range(_LOOKS):
            oldest = next(iter(self._full_at))
            if len(self._full_at) <= self._most and rate.full_in_ns(self._full_at[oldest], now_ns):
                return
            del self._full_at[oldest]
            if not self._full_at:
                return
