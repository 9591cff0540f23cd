"""What infertool is compared with: the shortest programs that do the same job with the given libraries.

Each runs as `python -m tests.bench.harness.peers.NAME PORT QUEUE COUNT` and prints its events a second, from the first
delivery to the last settlement. Prefetch 200 and `client-individual`, as infertool has.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine

PREFETCH = {"activemq.prefetchSize": "200"}
TIMEOUT_S = 180


class Clock:
    """Counts settlements down and knows the rate."""

    def __init__(self, count: int) -> None:
        self._count = self._left = count
        self._first = 0.0
        self.seconds = 0.0

    def begin(self) -> None:
        """Note a delivery."""
        self._first = self._first or time.perf_counter()

    def settled(self, count: int = 1) -> bool:
        """Note settlements; True with the last."""
        self._left -= count
        self.seconds = time.perf_counter() - self._first
        return self._left <= 0

    @property
    def rate(self) -> float:
        return self._count / self.seconds


def arguments() -> tuple[int, str, int]:
    """Return port, queue and count from the command line."""
    port, queue, count = sys.argv[1:]
    return int(port), queue, int(count)


def run_async(consume: Callable[[int, str, Clock], Coroutine[None, None, None]]) -> None:
    """Be a peer on asyncio: `consume` takes port, queue and clock."""
    port, queue, count = arguments()
    clock = Clock(count)
    asyncio.run(consume(port, queue, clock))
    print(clock.rate)


def run(name: str, *given: object) -> float:
    """Run a peer as a process of its own; return what it printed."""
    command = [sys.executable, "-m", f"tests.bench.harness.peers.{name}", *map(str, given)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S).stdout)
