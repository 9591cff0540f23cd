"""Admission: what cannot be served in time is refused at once, and told when to come back.

A request is accepted if its predicted wait is within the budget of its class, and within its own deadline:

    predicted wait = (requests ahead of it + requests at the broker) / drain rate

Ahead of it is all that waits in its class. For a client with more waiting than others it is more than that: others come
meanwhile, and take a turn for each request of its own.

A refused client gets a place in the line of returns, and `Retry-After` is the time of that place. Two things make it
true:

- Places are spread over time at less than what the class drains, and those of one client at less than its part of it.
- While clients are expected back, newcomers may not use the last part of the budget: one turn of each of these clients,
  and all that the newcomer's own client is expected to bring.

One client cannot fill a class: it may have at most four times as much waiting as is still free. So the budget has
room for others, and what was accepted is served in time, since all that waits in a class fits into the budget.
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass
from math import inf

from infertool.gateway.classes import Class
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.returns import Returns

UNKNOWN_RATE_LIMIT = 64
"""Unfinished requests that are accepted before the first second of work has shown a rate."""
_OPEN_SHARE = 4
_RESERVE_PART = 0.5
_RESERVE_S = 3.0
"""The part of a budget that is kept for returning clients, and its most."""
_KEPT = 1.25
"""A client that comes back at its time may wait for this many times the budget: what it was told holds, though the rate
has become lower meanwhile."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The wait that a request has before it (None: unknown), and why it is refused, if it is."""

    predicted_wait_s: float | None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who asks, and what this client has already.

    `key` is what a repeat of the request has in common with it: the idempotency key, else the fingerprint. `is_unique`:
    no other request has this key. `ahead` is the work ahead of this very client, where it is known. `own_part` is the
    client's part of what waits in the class (0 to 1), `class_share` the class's part of the capacity, and `turn_part`
    the client's part of that while it has requests waiting.
    """

    client: str = ""
    key: Hashable = None
    is_unique: bool = False
    ahead: int | None = None
    own_part: float = 0.0
    class_share: float = 1.0
    turn_part: float = 1.0


NOBODY = Asking()


class Admission:
    """Decides over requests. For one thread."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - it spreads load, and protects nothing
        self._returns: dict[str, Returns] = {}

    def decide_easily(
        self, class_: Class, *, in_broker: int, rate: float | None, deadline_in_s: float, now: float
    ) -> Verdict | None:
        """Accept a request that is accepted whoever asks, where nothing waits but what the broker has. Else None."""
        if not rate or in_broker / rate > min(class_.budget_s, deadline_in_s) or deadline_in_s <= 0:
            return None
        returns = self._returns.get(class_.name)
        return None if returns and returns.outstanding(now) else Verdict(in_broker / rate)

    def decide(
        self,
        class_: Class,
        *,
        ahead: int,
        in_broker: int,
        rate: float | None,
        deadline_in_s: float,
        now: float,
        followers: int = 0,
        asking: Asking = NOBODY,
    ) -> Verdict:
        """Return the verdict on one request.

        `ahead` is the work ahead of any new request of this class, and `rate` the requests that finish in a second.
        `followers` are events that the same caller sends with it: they are a part of its wait where there is other
        work. Where there is none the rate may be that of a light load, and the request would pass at no time.
        """
        others = ahead + in_broker
        followers = followers if others else 0
        work = others + followers
        if deadline_in_s <= 0:
            return Verdict(None, Problem(Reason.DEADLINE_TOO_EARLY, "The deadline has passed"))
        if rate is None:
            return _without_rate(others)
        wait_s = _seconds(work, rate)
        own_wait_s = wait_s if asking.ahead is None else _seconds(asking.ahead + in_broker + followers, rate)
        if own_wait_s > deadline_in_s and deadline_in_s < class_.budget_s:
            return Verdict(own_wait_s, _too_early(own_wait_s, deadline_in_s))
        returns = self._returns.get(class_.name)
        is_back = returns is not None and returns.is_due(asking.client, asking.key, now)
        excess_s = -inf
        if work and class_.budget_s < inf:
            if is_back:
                # The place that it was told is that of its first event.
                excess_s = max(wait_s, own_wait_s) - _seconds(followers, rate) - class_.budget_s * _KEPT
            else:
                expected = returns.turns(asking.client, now) if returns else 0
                expected_s = _seconds(expected, rate * asking.class_share)
                allowed_s = class_.budget_s - min(class_.budget_s * _RESERVE_PART, _RESERVE_S, expected_s)
                room_s = _until_room(wait_s - allowed_s, asking, _seconds(ahead, rate))
                excess_s = max(room_s, own_wait_s - allowed_s)
        if is_back and returns:
            returns.take(asking.client, asking.key)
        if excess_s > 0:
            longest = _told(max(wait_s, own_wait_s))
            detail = f"The predicted wait is {longest}; class {class_.name} allows {class_.budget_s:g} s"
            if _seconds(followers, rate) > class_.budget_s:
                problem = Problem(Reason.OVER_BUDGET, f"{detail}: send fewer events at once")
            else:
                problem = self._over_budget(class_, asking, detail, excess_s, rate, now)
            return Verdict(own_wait_s, problem)
        if own_wait_s > deadline_in_s:
            return Verdict(own_wait_s, _too_early(own_wait_s, deadline_in_s))
        return Verdict(own_wait_s)

    def _over_budget(
        self, class_: Class, asking: Asking, detail: str, excess_s: float, rate: float, now: float
    ) -> Problem:
        returns = self._returns.setdefault(class_.name, Returns(self._rng))
        seconds = returns.remaining_s(asking.client, asking.key, now) if asking.is_unique else None
        if seconds is None:
            seconds = returns.promise(
                asking.client,
                asking.key,
                now=now,
                earliest_s=excess_s,
                per_s=rate * asking.class_share,
                own_part=asking.turn_part,
            )
        return Problem(Reason.OVER_BUDGET, detail, retry_after_s=seconds)


def _seconds(work: int, rate: float) -> float:
    if not work:
        return 0.0
    return work / rate if rate > 0 else inf


def _without_rate(work: int) -> Verdict:
    if work < UNKNOWN_RATE_LIMIT:
        return Verdict(0.0 if not work else None)
    detail = f"No drain rate is known yet, and {work} requests are unfinished"
    return Verdict(None, Problem(Reason.OVER_BUDGET, detail))


def _until_room(excess_s: float, asking: Asking, waiting_s: float) -> float:
    """Return the seconds until there is room for one that was not told to come now, beside what its client has."""
    if excess_s > 0 or not asking.own_part:
        return excess_s
    # Own work and all work drain side by side, until the own is _OPEN_SHARE times what is free.
    return (asking.own_part * waiting_s + _OPEN_SHARE * excess_s) / (asking.own_part + _OPEN_SHARE)


def _too_early(wait_s: float, deadline_in_s: float) -> Problem:
    return Problem(
        Reason.DEADLINE_TOO_EARLY, f"The predicted wait is {_told(wait_s)}; the request allows {deadline_in_s:.1f} s"
    )


def _told(wait_s: float) -> str:
    return "without end" if wait_s == inf else f"{wait_s:.1f} s"
