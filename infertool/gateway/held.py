"""A request that the gateway holds: from its acceptance until its outcome is in the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from infertool.gateway.problem import Problem
from infertool.gateway.request import Accepted, InferRequest, Outcome, Progress, State


class Held:
    """For the loop's thread; others only look at `outcome`. `expires` is monotonic, in seconds.

    `is_confirmed` and `losses` are the dispatcher's: whether the broker has its message, and how often in a row the
    connection was lost before it had.
    """

    __slots__ = (
        "_enders",
        "_watchers",
        "accepted",
        "began",
        "expires",
        "is_confirmed",
        "is_stored",
        "is_unwanted",
        "known",
        "losses",
        "outcome",
        "priority",
        "request",
        "state",
        "timer",
        "was_unsent",
    )

    def __init__(self, request: InferRequest, left_s: float) -> None:
        self.request = request
        self.state = State.QUEUED
        self.outcome: Outcome | None = None
        # The broker did not get it, or lost it: whether it has it now tells of the broker.
        self.was_unsent = False
        self.is_confirmed = False
        self.losses = 0
        # The result of an equal request: it needs no inference.
        self.known: Outcome | None = None
        self.began = time.monotonic()
        self.expires = self.began + left_s
        self.is_stored = False
        # The caller left before the request was stored, and cannot ask for it.
        self.is_unwanted = False
        # That of its message.
        self.priority: int | None = None
        # The caller's wait for the acceptance, and the timer of the deadline.
        self.accepted: asyncio.Future[Accepted] | None = None
        self.timer: asyncio.TimerHandle | None = None
        # Waits for any change, and waits for the end.
        self._watchers: set[asyncio.Future[None]] = set()
        self._enders: set[asyncio.Future[None]] = set()

    @property
    def size(self) -> int:
        """The size of the body, and of the outcome once there is one."""
        return len(self.request.body) + (len(self.outcome.body) if self.outcome else 0)

    def accept(self, answer: Accepted | None = None) -> None:
        """Tell the caller who waits for it that the request is accepted."""
        if self.accepted and not self.accepted.done():
            self.accepted.set_result(answer or Accepted(self.request.id))
        self.accepted = None

    def refuse(self, problem: Problem) -> None:
        """Tell the caller who waits for the acceptance that there is none."""
        if self.accepted and not self.accepted.done():
            self.accepted.set_exception(problem)
        self.accepted = None

    def stop_timer(self) -> None:
        """Let the deadline not pass any more."""
        if self.timer:
            self.timer.cancel()

    def change(self, state: State, outcome: Outcome | None = None) -> None:
        """Note a change, and tell all that wait for one."""
        self.state = state
        self.outcome = outcome
        self.tell()
        if outcome is not None:
            enders, self._enders = self._enders, set()
            wake(enders)

    def tell(self) -> None:
        """Wake all that wait for a change."""
        watchers, self._watchers = self._watchers, set()
        wake(watchers)

    async def next_change(self, timeout_s: float | None) -> None:
        """Wait until something has changed, or for `timeout_s`."""
        await _woken(self._watchers, timeout_s)

    async def end(self, timeout_s: float) -> None:
        """Wait until the request has ended, or for `timeout_s`."""
        if self.outcome is None:
            await _woken(self._enders, timeout_s)

    def progress(self, position: int | None = None, eta_ms: int | None = None) -> Progress:
        """Return what is known."""
        return Progress(
            request=self.request, state=self.state, position=position, eta_ms=eta_ms, outcome=self.outcome
        )  # fmt: skip


def wake(futures: Iterable[asyncio.Future[None]]) -> None:
    """End what waits."""
    for future in futures:
        if not future.done():
            future.set_result(None)


async def _woken(waits: set[asyncio.Future[None]], timeout_s: float | None) -> None:
    """Wait until `waits` are woken, or for `timeout_s`."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    waits.add(future)
    # Less than half the cost of `asyncio.timeout`.
    timer = None if timeout_s is None else loop.call_later(timeout_s, wake, (future,))
    try:
        await future
    finally:
        if timer:
            timer.cancel()
        waits.discard(future)
