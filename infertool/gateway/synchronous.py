"""Requests whose caller waits until the end: the events of one request pass the chain together, and all end together.

Its deadline is the caller's patience. Nobody can ask for the result later, so no model works for it later.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from infertool.gateway import answers
from infertool.gateway.headers import LEAST_S, LONGEST_KEY, MOST_S, Preference, idempotency_key
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import Progress, State

if TYPE_CHECKING:
    from infertool.gateway.chain import Chain, Visit
    from infertool.gateway.port import Engine

T = TypeVar("T")

# Maximum of event ids in a header: proxies take 4 KiB of response headers.
_MOST_IDS: Final = 50
# The engine tells the end of a deadline a moment after it. Seconds.
_GRACE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Synchronous:
    """Runs requests for callers who wait: `wait_s` unless they say for how long.

    `has_dead_letters`: what failed can be repaired and replayed.
    """

    chain: Chain
    engine: Engine
    wait_s: float
    has_dead_letters: bool = True

    async def run(self, visit: Visit, parts: Sequence[bytes], kind: str) -> list[Progress]:
        """Pass an event for each of `parts` to the engine, and wait until all have succeeded.

        The first event that fails gives the others up. Raises `Problem`, `ClientGoneError`.
        """

        def check(progress: Progress) -> Progress:
            if problem := self._problem(progress):
                raise problem
            return progress

        return await self._run(visit, parts, kind, check)

    async def run_each(self, visit: Visit, parts: Sequence[bytes], kind: str) -> list[Progress | Problem]:
        """Do as `run`, and wait until all have ended. Return the problem of each event that failed.

        Raises `Problem` where an event is not taken, `ClientGoneError`.
        """
        return await self._run(visit, parts, kind, lambda progress: self._problem(progress) or progress)

    async def _run(self, visit: Visit, parts: Sequence[bytes], kind: str, ended: Callable[[Progress], T]) -> list[T]:
        """Return what `ended` makes of each event.

        The caller waits for `Request-Timeout`, else for `Prefer: wait`, else for `wait_s`.
        """
        chain = self.chain
        asked, timeout_s = visit.preference, visit.headers.seconds("request-timeout")
        wait_s = timeout_s or asked.wait_s or self.wait_s
        # No other preference is honoured here, and that is not told.
        is_applied = asked.applied and asked.wait_s and not timeout_s
        visit.preference = Preference(wait_s, f"wait={wait_s:g}" if is_applied else "")
        visit.headers["request-timeout"] = f"{min(max(wait_s, LEAST_S), MOST_S):.6f}"
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s + _GRACE_S
        ids: list[str] = []
        found: list[T] = []
        visits = _visits(chain, visit, parts)
        is_batch = len(visits) > 1
        try:
            if is_batch:
                await chain.admit(visits, parts, kind)
            for each in visits:
                ids.append((await chain.submit(each, parts[len(ids)], kind, is_admitted=is_batch)).id)
            visit.context.headers["Infertool-Event-Id"] = ",".join(ids[:_MOST_IDS])
            for request_id in ids:
                progress = await chain.wait(visit, request_id, max(until - loop.time(), 0.001))
                found.append(ended(progress))
        except BaseException:
            for request_id in ids[len(found) :]:
                self.engine.hung_up(request_id)
            for each in visits:
                chain.release(each)
            raise
        return found

    def _problem(self, progress: Progress) -> Problem | None:
        """Return the problem of a request without a result. What another try would not change is the caller's: 422."""
        if progress.state is State.SUCCEEDED:
            return None
        if not progress.state.is_final:
            reason = Reason.DRAINING if self.chain.draining else Reason.EXPIRED
            return Problem(reason, "there is no result yet", members={"event_id": progress.request.id})
        problem = answers.failure(progress)
        if problem.members.get("retryable") is False:
            problem.reason = Reason.INPUT_REFUSED
            problem.members["reason"] = Reason.INPUT_REFUSED.name.lower()
        if not self.has_dead_letters:
            problem.members.pop("replay", None)
        return problem


def _visits(chain: Chain, visit: Visit, parts: Sequence[bytes]) -> list[Visit]:
    """Return a visit for each event: its size counts by itself, and its idempotency key is its own."""
    if len(parts) == 1:
        return [visit]
    key = idempotency_key(visit.headers)
    visits = [visit]
    for number in range(1, len(parts)):
        headers = type(visit.headers)(visit.headers)
        if key:
            headers["idempotency-key"] = _numbered(key, number)
        visits.append(replace(visit, headers=headers, taken=None))
    chain.take_batch(visits, [len(part) for part in parts])
    return visits


def _numbered(key: str, number: int) -> str:
    """Return the idempotency key of a later event of a request, which is no longer than keys may be."""
    found = f"{key}/{number}"
    return found if len(found) <= LONGEST_KEY else f"{hashlib.sha256(key.encode()).hexdigest()}/{number}"


def about(progress: Progress) -> dict[str, str]:
    """Return the headers that tell what the body does not."""
    found = {"Infertool-Status": progress.state.value, "Infertool-Class": progress.request.class_name}
    if progress.outcome and progress.outcome.processing_ms is not None:
        found["Infertool-Processing-Ms"] = f"{progress.outcome.processing_ms:.3f}"
    if progress.outcome and progress.outcome.is_cached:
        found["Infertool-Cache"] = "hit"
    return found
