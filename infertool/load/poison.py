"""Events that no consumer can work on: a share of them tests what a bus does with such."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from infertool.errors import UsageError

# Each takes a good body: cut short, not JSON, not UTF-8, no object, nothing at all.
_KINDS: Final[tuple[Callable[[bytes], bytes], ...]] = (
    lambda body: body[: max(1, len(body) // 2)],
    lambda _body: b"<event>not JSON</event>",
    lambda body: b'{"text":"\xff\xfe",' + body[1:],
    lambda body: b"[%b]" % body,
    lambda _body: b"",
)


class Poison:
    """Spoils a share of the events, chosen by `rng`, in several ways by turns of chance."""

    def __init__(self, rate: float, rng: random.Random) -> None:
        self._rate = rate
        self._rng = rng

    def __call__(self, body: bytes) -> bytes | None:
        """Return a broken body in place of `body`, or None when the event stays good."""
        if self._rng.random() >= self._rate:
            return None
        return self._rng.choice(_KINDS)(body)


def check_rate(rate: float) -> None:
    """Raise UsageError for a share that is none."""
    if not 0 <= rate <= 1:
        raise UsageError(f"--poison-rate {rate:g} is no share", advice="write a number from 0 to 1, for example 0.01")
