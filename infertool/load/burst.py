"""A burst against a gateway: calm, many times the capacity, calm again; and how each class of requests fared.

An open model: requests are sent by the plan, whatever becomes of the ones before. Each is sent by one of many clients
(X-Forwarded-For). Who is refused with Retry-After comes back once, at the told time.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from statistics import median
from typing import Any, Final

from infertool.net import retry_after
from infertool.net.http_answer import Answer
from infertool.net.http_client import ExchangeError, HttpConnection, Target, connect, request_head, with_body

CALM_PART: Final = 0.5
_CONNECT_S: Final = 10.0
_TICK_S: Final = 0.01
_CLIENTS: Final = 200
_MOST_BODY: Final = 1 << 20
# As fast as in the calm before: within twice its 95th percentile, and this. Milliseconds.
_NOISE_MS: Final = 100.0
_CALM_SECONDS: Final = 2
_COUNTS: Final = ("sent", "served", "refused", "told", "returned", "served_on_return")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Seconds and rates. `shares` are the parts of the classes, whose first one decides when all is well again."""

    capacity_per_s: float
    factor: float
    calm_s: float
    burst_s: float
    recovery_s: float
    shares: Mapping[str, float]

    def rate(self, at_s: float) -> float:
        """Return the requests a second at a time."""
        is_burst = self.calm_s <= at_s < self.calm_s + self.burst_s
        return self.capacity_per_s * (self.factor if is_burst else CALM_PART)


@dataclass(slots=True)
class Fate:
    """How the requests of one class fared. `refused` counts first tries; of these `told` when to come back."""

    sent: int = 0
    served: int = 0
    refused: int = 0
    told: int = 0
    returned: int = 0
    served_on_return: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    retry_after_s: list[float] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the figures."""
        counts = {key: getattr(self, key) for key in _COUNTS}
        waits = sorted(self.retry_after_s)
        told = {"least": waits[0], "median": median(waits), "most": waits[-1]} if waits else None
        return {
            **counts,
            "failed": dict(self.failed),
            "p50_ms": percentile(self.latencies_ms, 0.5),
            "p99_ms": percentile(self.latencies_ms, 0.99),
            "retry_after_s": told,
        }


@dataclass(slots=True)
class Second:
    """What happened in one second. `open` requests had no answer at its end."""

    at_s: int
    burst: bool
    sent: int = 0
    refused: int = 0
    open: int = 0
    served: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the figures; the latency is that of the first class."""
        return {
            "at_s": self.at_s, "burst": self.burst, "sent": self.sent, "refused": self.refused, "open": self.open,
            "served": dict(self.served), "p95_ms": percentile(self.latencies_ms, 0.95),
        }  # fmt: skip


def percentile(values: Sequence[float], part: float) -> float | None:
    """Return a percentile; None without values."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)], 1) if ordered else None


class Burst:
    """One burst at `url`. `run` in an event loop; `stop` ends it early."""

    def __init__(self, url: str, plan: Plan, on_second: Callable[[Second], None], seed: int = 1) -> None:
        self.plan = plan
        self.fates = {name: Fate() for name in plan.shares}
        self.seconds: list[Second] = []
        self._target = Target.of(f"{url}/predict")
        self._on_second = on_second
        self._random = random.Random(seed)  # noqa: S311  (a plan, and no secret)
        self._first = next(iter(plan.shares))
        self._idle: list[HttpConnection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0
        self._stopping = False
        self._began = 0.0

    def stop(self) -> None:
        """End early: send nothing more."""
        self._stopping = True

    async def run(self) -> dict[str, Any]:
        """Send by the plan until all is well again, and wait for what is open."""
        self._began = time.monotonic()
        self._begin_second(0)
        due = last = 0.0
        while not self._stopping and not self._is_over():
            now = time.monotonic() - self._began
            due += (now - last) * self.plan.rate(now)
            last = now
            while due >= 1:
                due -= 1
                self._spawn(self._request(self._choose()))
            if int(now) > self.seconds[-1].at_s:
                self._begin_second(int(now))
            await asyncio.sleep(_TICK_S)
        while self._tasks and not self._stopping:
            await asyncio.wait(self._tasks, timeout=1, return_when=asyncio.ALL_COMPLETED)
            self._begin_second(int(time.monotonic() - self._began))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._idle:
            connection.abort()
        return self.document()

    def document(self) -> dict[str, Any]:
        """Return all figures."""
        plan, fates = self.plan, self.fates.values()
        returned = sum(each.returned for each in fates)
        on_return = sum(each.served_on_return for each in fates)
        return {
            "capacity_per_s": plan.capacity_per_s,
            "burst": {"factor": plan.factor, "seconds": plan.burst_s},
            "sent": sum(each.sent for each in fates),
            "served": sum(each.served for each in fates),
            "refused": sum(each.refused for each in fates),
            "failed": sum(sum(each.failed.values()) for each in fates),
            "served_on_return_part": round(on_return / returned, 3) if returned else None,
            "recovery_s": self.recovery_s(),
            "classes": {name: fate.document() for name, fate in self.fates.items()},
            "seconds": [each.document() for each in self.seconds],
        }

    def recovery_s(self) -> float | None:
        """Return the seconds from the end of the burst until all was as before; None if that was not seen."""
        end_s = self.plan.calm_s + self.plan.burst_s
        limit_ms = self._limit_ms()
        run = 0
        for second in self.seconds[:-1]:
            if second.at_s < end_s:
                continue
            p95 = percentile(second.latencies_ms, 0.95)
            run = run + 1 if p95 is not None and p95 <= limit_ms and not second.refused else 0
            if run == _CALM_SECONDS:
                return max(0.0, second.at_s + 1 - _CALM_SECONDS - end_s)
        return None

    def _limit_ms(self) -> float:
        before = [ms for each in self.seconds if each.at_s < self.plan.calm_s for ms in each.latencies_ms]
        return 2 * (percentile(before, 0.95) or 0.0) + _NOISE_MS

    def _is_over(self) -> bool:
        now = time.monotonic() - self._began
        plan = self.plan
        if now < plan.calm_s + plan.burst_s:
            return False
        return now > plan.calm_s + plan.burst_s + plan.recovery_s or self.recovery_s() is not None

    def _begin_second(self, at_s: int) -> None:
        if self.seconds:
            if at_s == self.seconds[-1].at_s:
                return
            self.seconds[-1].open = self._open
            self._on_second(self.seconds[-1])
        plan = self.plan
        self.seconds.append(Second(at_s, plan.calm_s <= at_s < plan.calm_s + plan.burst_s))

    def _choose(self) -> str:
        (name,) = self._random.choices(list(self.plan.shares), list(self.plan.shares.values()))
        return name

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _request(self, name: str) -> None:
        fate, second = self.fates[name], self.seconds[-1]
        client = self._random.randrange(_CLIENTS)
        fate.sent += 1
        second.sent += 1
        began = time.monotonic()
        answer = await self._exchange(name, client)
        if answer is None or answer.status != HTTPStatus.TOO_MANY_REQUESTS:
            self._note(fate, name, answer, began)
            return
        fate.refused += 1
        self.seconds[-1].refused += 1
        wait_s = retry_after.seconds(answer.header("retry-after"))
        if wait_s is None:
            return
        fate.told += 1
        fate.retry_after_s.append(wait_s)
        await asyncio.sleep(wait_s)
        fate.returned += 1
        began = time.monotonic()
        answer = await self._exchange(name, client)
        if answer is not None and answer.status == HTTPStatus.OK:
            fate.served_on_return += 1
        if answer is None or answer.status != HTTPStatus.TOO_MANY_REQUESTS:
            self._note(fate, name, answer, began)

    def _note(self, fate: Fate, name: str, answer: Answer | None, began: float) -> None:
        if answer is None or answer.status != HTTPStatus.OK:
            fate.failed["no answer" if answer is None else str(answer.status)] += 1
            return
        latency_ms = (time.monotonic() - began) * 1000
        fate.served += 1
        fate.latencies_ms.append(latency_ms)
        self.seconds[-1].served[name] += 1
        if name == self._first:
            self.seconds[-1].latencies_ms.append(latency_ms)

    async def _exchange(self, name: str, client: int) -> Answer | None:
        """Return the answer to one request; None if there is none."""
        head = request_head("POST", self._target, {
            "Content-Type": "application/json", "Infertool-Class": name, "Request-Timeout": "120",
            "X-Forwarded-For": f"10.0.{client // 250}.{client % 250 + 1}",
        })  # fmt: skip
        request = with_body(head, b'{"features":[1,2,3]}')
        self._open += 1
        try:
            connection = await self._connection()
            answer = await connection.exchange(request)
        except ExchangeError:
            return None
        finally:
            self._open -= 1
        if connection.free:
            self._idle.append(connection)
        return answer

    async def _connection(self) -> HttpConnection:
        for connection in self._free():
            return connection
        try:
            async with asyncio.timeout(_CONNECT_S):
                return await connect(self._target, max_body=_MOST_BODY)
        except TimeoutError:
            raise ExchangeError("no connection in time", connected=False) from None

    def _free(self) -> Iterator[HttpConnection]:
        while self._idle:
            connection = self._idle.pop()
            if connection.free:
                yield connection
