"""Several queues with weights, as `broker.queue` names them: `high=8,normal=3,low=1`.

A single `NAME=8` is the name of a queue, and a list or pattern without weights is one subscription, as far as the
broker has such.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import permutations
from typing import Final

from infertool.brokers.partitioned import Lag, Lagging
from infertool.brokers.port import Broker, Conventions, Depth, Monitored
from infertool.errors import UsageError

_WEIGHTED: Final = re.compile(r"(?P<name>[^=?]+)=(?P<weight>[^=?]*)")
_NUMBER: Final = re.compile(r"\d+(\.\d+)?")
_LIGHTEST, _HEAVIEST = 0.001, 1000.0
_EXAMPLE: Final = "write for example high=8,normal=3,low=1"


@dataclass(frozen=True, slots=True)
class WeightedQueue:
    """What one subscription names, and its weight in relation to the others."""

    name: str
    weight: float = 1.0


def parse(text: str) -> list[WeightedQueue]:
    """Return the subscriptions that `broker.queue` asks for: one, unless it has weights. Raises `UsageError`."""
    parts = [part.strip() for part in text.split(",")]
    weighted = [match for match in map(_WEIGHTED.fullmatch, parts) if match]
    if len(parts) == 1 or not weighted:
        return [WeightedQueue(text)]
    if len(weighted) < len(parts):
        raise UsageError(f"{text!r} has weights for some of its queues only", advice=_EXAMPLE)
    return [WeightedQueue(match["name"].strip(), _weight(match["weight"].strip(), text)) for match in weighted]


def names(text: str) -> list[str]:
    """Return what each subscription names."""
    return [queue.name for queue in parse(text)]


def spelled(text: str, spell: Callable[[str], str]) -> str:
    """Return `broker.queue` with each name as `spell` returns it. Raises `UsageError`."""
    queues = parse(text)
    if len(queues) == 1:
        return spell(text)
    return ",".join(f"{spell(queue.name)}={queue.weight:g}" for queue in queues)


def full(text: str, spelling: Conventions) -> str:
    """Return `broker.queue` with full names. Raises `UsageError`, also for queues that would get the same messages."""
    found = spelled(text, spelling.source)
    for one, other in permutations(names(found), 2):
        if one == other or spelling.covers(one, other):
            raise UsageError(
                f"{text!r}: {spelling.short(one)} covers {spelling.short(other)}", advice="name each queue once"
            )
    return found


def measure(broker: Broker, queues: Sequence[str], timeout_s: float) -> Depth | None:
    """Return what the queues hold together; None when one is not told: the rest would look as if it were all."""
    depths = [broker.measure(queue, timeout_s) for queue in queues]
    known = [depth for depth in depths if depth]
    if len(known) < len(depths):
        return None
    if len(known) == 1:
        return known[0]
    return Depth(**{field.name: _sum([getattr(depth, field.name) for depth in known]) for field in fields(Depth)})


def lag(broker: Lagging, queues: Sequence[str], timeout_s: float) -> Lag | None:
    """Return how far the queues' consumers are behind together; None when that of one is not told."""
    found = [broker.lag(queue, timeout_s) for queue in queues]
    known = [each for each in found if each]
    if len(known) < len(found):
        return None
    return Lag(
        messages=sum(each.messages for each in known),
        seconds=max((each.seconds for each in known if each.seconds is not None), default=None),
        lost=sum(each.lost for each in known),
        gap=max(each.gap for each in known),
    )


def oldest_sent_ms(broker: Monitored, queues: Sequence[str], timeout_s: float) -> int | None:
    """Return when the oldest first message of the queues was sent; None where that is not told."""
    asked = (broker.oldest_sent_ms(queue, timeout_s) for queue in queues)
    return min((sent_ms for sent_ms in asked if sent_ms is not None), default=None)


def _sum(figures: Sequence[int | None]) -> int | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) if len(known) == len(figures) else None


def _weight(text: str, whole: str) -> float:
    weight = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not _LIGHTEST <= weight <= _HEAVIEST:
        raise UsageError(f"{whole!r}: {text!r} is no weight from {_LIGHTEST:g} to {_HEAVIEST:g}", advice=_EXAMPLE)
    return weight
