"""The pace and the progress of a replay: a limit of messages a second, low at first, so that a mistake shows early."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from infertool.deadletters.ids import event_id
from infertool.deadletters.replay.decide import Decision, Fate, Fault
from infertool.errors import UsageError
from infertool.text.sanitize import printable

_STAGED = frozenset({Fate.KEEP, Fate.OTHER, Fate.NEW})
# Texts of faults may differ from letter to letter; the counts of them must not grow without end.
_MOST_REASONS = 100


# Letters that went wrong and are named; the others are counted.
MOST_NAMED = 100


@dataclass(frozen=True, slots=True)
class Named:
    """A letter that was tried and did not get through."""

    message_id: str
    event_id: str
    fault: Fault
    why: str


@dataclass(slots=True)
class Tally:
    """Counts of letters. Those of a transaction that turns out not to have been done are taken back.

    `staged` wait to be put back, `restored` are put back; unless it `stages` (from a file it does not), there are none.
    `taken` were there at the start. While `sweeping` the run puts nothing into its queue. `faults` counts letters that
    were tried and did not get through; the first are `named`. `losses` is what targets could not carry.
    """

    fates: Counter[Fate] = field(default_factory=Counter)
    targets: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)
    named: list[Named] = field(default_factory=list)
    staged: int = 0
    restored: int = 0
    failed_again: int = 0
    in_doubt: int = 0
    sweeping: bool = False
    seconds: float = 0.0
    ended: str = ""
    stages: bool = True

    @property
    def replayed(self) -> int:
        """Letters that were sent to their target."""
        return self.fates[Fate.REPLAY]

    @property
    def taken(self) -> int:
        """Letters seen that were there at the start."""
        return self.fates.total() - self.fates[Fate.NEW]

    @property
    def matched(self) -> int:
        """Letters that were meant, replayed or not."""
        return self.fates[Fate.REPLAY] + self.fates[Fate.PARK] + self.fates[Fate.KEEP]

    @property
    def touched(self) -> int:
        """Letters that did not stay where they were."""
        return self.fates[Fate.REPLAY] + self.fates[Fate.PARK] + self.fates[Fate.DOUBLE]

    def add(self, decisions: Sequence[Decision], sign: int = 1) -> None:
        """Count `decisions`, or take them back with -1."""
        for each in decisions:
            self.fates[each.fate] += sign
            self.staged += sign if self.stages and (each.fate in _STAGED or each.also) else 0
            if each.fate in {Fate.REPLAY, Fate.PARK}:
                self.targets[each.replacement.destination] += sign
            elif each.fate in {Fate.KEEP, Fate.HOLD}:
                self.reasons[_bounded(each.why, self.reasons)] += sign
            for loss in each.losses:
                self.losses[_bounded(loss, self.losses)] += sign
            if each.fault is not None:
                self._name(each, each.fault, sign)

    def _name(self, decision: Decision, fault: Fault, sign: int) -> None:
        self.faults[fault] += sign
        letter = decision.letter
        named = Named(letter.message.id, event_id(letter), fault, decision.why)
        if sign < 0 and named in self.named:
            self.named.remove(named)
        elif sign > 0 and len(self.named) < MOST_NAMED:
            self.named.append(named)

    def summary(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "replayed": self.replayed,
            "parked": self.fates[Fate.PARK],
            "kept": self.fates[Fate.KEEP] + self.fates[Fate.HOLD],
            "refused": self.faults[Fault.REFUSED],
            "unconfirmed": self.faults[Fault.UNCONFIRMED],
            "in_doubt": self.in_doubt,
            "named": [
                {
                    "message_id": printable(one.message_id),
                    "event_id": printable(one.event_id),
                    "why": printable(one.why),
                }
                for one in self.named
            ],
            "not_matching": self.fates[Fate.OTHER],
            "arrived_meanwhile": self.fates[Fate.NEW],
            "failed_again": self.failed_again,
            "put_back": self.restored,
            "left_in_staging": max(self.staged - self.restored, 0),
            "targets": {printable(target): count for target, count in self.targets.items() if count},
            "reasons": {printable(reason): count for reason, count in self.reasons.items() if count},
            "losses": {printable(loss): count for loss, count in self.losses.items() if count},
            **({"doubles_removed": doubles} if (doubles := self.fates[Fate.DOUBLE]) else {}),
            "seconds": round(self.seconds, 3),
            "ended": self.ended,
        }


def _bounded(text: str, counts: Counter[str]) -> str:
    return text if text in counts or len(counts) < _MOST_REASONS else "others"


RAMP_S = 10.0
# The ramp begins with this share of the rate.
_FIRST = 0.1
# Messages go in small groups, this number of groups a second.
_GROUPS = 5


def parse_rate(text: str) -> float:
    """Return "50/s" or "50" as replays a second. Raises `UsageError`."""
    try:
        rate = float(text.strip().removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise UsageError(f"--rate {text!r} is no rate", advice="write for example 50/s or 0.5/s")
    return rate


class Pace:
    """Spreads replays over time: from a tenth of `rate` (a second) to all of it within ten seconds.

    Time in which nothing could be sent (a lost connection) is not made up for.
    """

    def __init__(self, rate: float, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._stop = stop
        self._clock = clock
        self._began = clock()
        self._next = self._began

    def group(self) -> int:
        """Return how many to send at once now."""
        return max(1, int(self._now_rate() / _GROUPS))

    def wait(self, count: int) -> bool:
        """Wait until `count` more may go. Return False when stopped meanwhile."""
        start = max(self._next, self._clock())
        self._next = start + count / self._now_rate()
        return not self._stop.wait(start - self._clock())

    def _now_rate(self) -> float:
        share = _FIRST + (1 - _FIRST) * (self._clock() - self._began) / RAMP_S
        return self._rate * min(1.0, share)
