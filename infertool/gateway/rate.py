"""A limit of requests over time: the generic cell rate algorithm (GCRA), in whole numbers, so that it is exact.

A client has one number, the time at which its burst is whole again. A request moves it by one interval; a request that
would move it further ahead than the burst allows is refused. In any time t it lets `burst` + t / interval through at
most, without a window whose edge would let twice as many pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from infertool.text.input import parse_rate

NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` requests in `seconds`, and `burst` of them at once.

    Its state, `full_at`, is in parts of a nanosecond, `count` to each: then an interval is a whole number of them.
    """

    count: int
    seconds: int
    burst: int

    @classmethod
    def parse(cls, text: str) -> Rate | None:
        """Return the rate that `text` names; None for an empty one. Raises `UsageError`."""
        return cls(*parse_rate(text)) if text else None

    @property
    def window_s(self) -> int:
        """The seconds in which a whole burst comes back."""
        return -(-self.burst * self.seconds // self.count)

    def take(self, full_at: int, now_ns: int, requests: int = 1) -> tuple[int, int]:
        """Return the new `full_at`, and 0; or the old one, and the nanoseconds until the requests pass together."""
        now, interval = now_ns * self.count, self.seconds * NANOSECONDS
        moved = max(full_at, now) + requests * interval
        excess = moved - now - self.burst * interval
        return (moved, 0) if excess <= 0 else (full_at, -(-excess // self.count))

    def given_back(self, full_at: int) -> int:
        """Return `full_at` as if the newest request had not come."""
        return full_at - self.seconds * NANOSECONDS

    def left(self, full_at: int, now_ns: int) -> int:
        """Return how many requests would pass at once."""
        interval = self.seconds * NANOSECONDS
        return max(0, self.burst - -(-max(0, full_at - now_ns * self.count) // interval))

    def full_in_ns(self, full_at: int, now_ns: int) -> int:
        """Return the nanoseconds until a whole burst passes."""
        return -(-max(0, full_at - now_ns * self.count) // self.count)
