"""The view of a replay: its preview, its progress (a bar on a terminal, lines elsewhere) and its result."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from infertool.brokers.port import Browse, Conventions, Depth
from infertool.cli.common import console, deadletters
from infertool.cli.common.deadletters import when
from infertool.cli.common.recent_rate import RecentRate
from infertool.cli.common.signals import repeated
from infertool.deadletters import selection
from infertool.deadletters.replay import companions
from infertool.deadletters.replay.crossings import Crossing
from infertool.deadletters.replay.decide import Decider, Decision, Fate, Fault, Plan
from infertool.deadletters.replay.progress import MOST_NAMED, Tally
from infertool.errors import InfertoolError
from infertool.text.sanitize import printable

_FIELDS = ("stage", "error_type")
_MOST_NAMED = 20
_LINE_EVERY_S = 5.0
_BAR_EVERY_S = 0.25
_LOOK_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Preview:
    """The letters that browsing showed, and the plan's decision for each."""

    plan: Plan
    browse: Browse
    decisions: Sequence[Decision]
    # What letters may lose that browsing did not show.
    limits: tuple[str, ...] = ()

    @property
    def replays(self) -> list[Decision]:
        """Letters that would be replayed."""
        return [each for each in self.decisions if each.fate is Fate.REPLAY]

    @property
    def nothing_matches(self) -> bool:
        """True if the whole queue was seen and no letter would be moved."""
        touched = any(each.fate in {Fate.REPLAY, Fate.PARK} for each in self.decisions)
        return self.browse.complete and not touched

    def lines(self) -> list[str]:
        """Return the preview as lines of text."""
        replays = self.replays
        lines = [self._depth_line(), self._match_line(len(replays))]
        lines += [f"  to {target}: {count}" for target, count in self._targets(replays).most_common()]
        lines += [f"  stay: {count}, {why}" for why, count in self._reasons().most_common()]
        lines += [f"  lost: {count}, {what}" for what, count in self._losses(replays).most_common()]
        lines += [f"  may be lost by others: {what}" for what in self.limits]
        if doubles := sum(each.fate is Fate.DOUBLE for each in self.decisions):
            lines.append(f"  removed: {doubles}, second copies of letters (same dlq_id)")
        if replays:
            letters = [each.letter for each in replays]
            died = [letter.failed_at for letter in letters if letter.failed_at is not None]
            if died:
                lines.append(f"  oldest {when(min(died))}, newest {when(max(died))}")
            lines += deadletters.group_table(selection.group(letters, _FIELDS), _FIELDS)
        return lines

    def document(self) -> dict[str, Any]:
        """Return the preview as a document for JSON."""
        replays = self.replays
        counts = {"targets": self._targets(replays), "reasons": self._reasons(), "losses": self._losses(replays)}
        return {
            "queue": self.plan.queue,
            "dry_run": True,
            "depth": self.browse.depth,
            "seen": len(self.browse.messages),
            "complete": self.browse.complete,
            "matching": len(replays),
            "may_lose": list(self.limits),
            **{name: {printable(text): count for text, count in each.items()} for name, each in counts.items()},
        }

    def _depth_line(self) -> str:
        depth = self.browse.depth
        return f"{self.plan.queue}: {'an unknown number of' if depth is None else depth} messages"

    def _match_line(self, count: int) -> str:
        seen = len(self.browse.messages)
        limit = "" if self.plan.limit is None else f", of which at most {self.plan.limit} are replayed"
        if self.browse.complete:
            return f"{count} match{limit}"
        return f"{count} match of the first {seen}; browsing sees no more, the replay goes through all{limit}"

    def _targets(self, replays: Sequence[Decision]) -> Counter[str]:
        return Counter(each.replacement.destination for each in replays)

    def _losses(self, replays: Sequence[Decision]) -> Counter[str]:
        return Counter(loss for each in replays for loss in each.losses)

    def _reasons(self) -> Counter[str]:
        return Counter(each.why for each in self.decisions if each.fate in {Fate.KEEP, Fate.HOLD, Fate.PARK})


def preview(plan: Plan, browse: Browse, here: Conventions, crossing: Crossing | None = None) -> Preview:
    """Return the decisions of `plan` on the letters that browsing showed. See `Decider`."""
    decider = Decider(plan, here, crossing)
    limits = crossing.limits() if crossing and not browse.complete else ()
    return Preview(plan, browse, [decider.decide(message) for message in browse.messages], limits)


def stopping(*, stages: bool) -> str:
    """Return what is said at the first Ctrl-C."""
    if not stages:
        return "stopping after this batch; Ctrl-C again leaves at once (nothing is lost)"
    return (
        "stopping after this transaction, and putting back what is staged; "
        "Ctrl-C again leaves that to the next run (nothing is lost)"
    )


def result_line(tally: Tally, plan: Plan) -> str:
    """Return the numbers of moved and remaining letters in one line."""
    verb = "copied" if plan.copy else "replayed"
    parts = [f"{verb} {tally.replayed}"]
    for name, count in (
        ("refused", tally.faults[Fault.REFUSED]),
        ("never confirmed, which may have arrived", tally.faults[Fault.UNCONFIRMED]),
        ("parked", tally.fates[Fate.PARK]),
        ("second copies removed", tally.fates[Fate.DOUBLE]),
        ("kept", tally.fates[Fate.KEEP] + tally.fates[Fate.HOLD]),
        ("not matching", tally.fates[Fate.OTHER]),
        ("arrived meanwhile", tally.fates[Fate.NEW]),
        ("failed again", tally.failed_again),
        ("in doubt when the connection was lost, and not seen again", tally.in_doubt),
    ):
        if count:
            parts.append(f"{count} {name}")
    left = tally.staged - tally.restored
    if left > 0:
        parts.append(f"{left} still in {companions.staging(plan.queue)}: the next run puts them back")
    return f"{', '.join(parts)}; {remaining(tally, plan)} in {plan.queue}; {tally.seconds:.1f} s"


def print_reasons(tally: Tally) -> None:
    """Print why letters stay, what targets could not carry, and the letters whose replay failed."""
    for reason, count in tally.reasons.most_common():
        if count:
            console.err(f"  {count} stay: {reason}")
    for loss, count in tally.losses.most_common():
        if count:
            console.err(f"  {count} lost {loss}")
    for named in tally.named[:_MOST_NAMED]:
        event = "" if named.event_id == named.message_id else f" (event id {named.event_id})"
        console.err(f"  {named.fault}: {named.message_id}{event}: {named.why}")
    if (more := tally.faults.total() - _MOST_NAMED) > 0:
        console.err(f"  and {more} more; -o json names {MOST_NAMED}, --audit all")


def check_faults(tally: Tally) -> None:
    """Raise `InfertoolError` if letters were tried and did not get through: a script must not take that for done."""
    if count := tally.faults.total():
        raise InfertoolError(f"{count} did not get through", advice="they stay where they were, and are named above")


def remaining(tally: Tally, plan: Plan) -> str:
    """Return how many of the letters that were there at the start remain."""
    if plan.depth is None:
        return "an unknown number remains"
    moved = tally.fates[Fate.PARK] + tally.fates[Fate.DOUBLE] + (0 if plan.copy else tally.replayed)
    return f"{max(plan.depth - moved, 0)} of {plan.depth} remain"


class NewLetters:
    """The number of dead letters added to the queue since the start, as far as the broker counts them.

    In a deep queue the replay itself would see them last.
    """

    def __init__(self, measure: Callable[[], Depth | None]) -> None:
        self._measure = measure
        self._start = self._enqueued()

    def _enqueued(self) -> int | None:
        depth = self._measure()
        return depth.enqueued if depth else None

    def __call__(self) -> int:
        """Return the current number; 0 if the broker does not count."""
        now = None if self._start is None else self._enqueued()
        return 0 if now is None or self._start is None else max(now - self._start, 0)


@contextmanager
def shown(tally: Tally, plan: Plan, *, quiet: bool, new_letters: NewLetters | None = None) -> Iterator[None]:
    """Show the progress while the block runs; warn of replayed events that failed again."""
    bar = sys.stderr.isatty() and not quiet
    progress = _Progress(tally, plan, quiet=quiet, new_letters=new_letters)
    target, every = (progress.update_line, _BAR_EVERY_S) if bar else (progress.print_line, _LINE_EVERY_S)

    def look() -> None:
        progress.warn()
        progress.look()
        if progress.is_due(every):
            target()

    try:
        with repeated(look, _BAR_EVERY_S):
            yield
    finally:
        progress.warn()
        if bar:
            console.err("")


class _Progress:
    def __init__(self, tally: Tally, plan: Plan, *, quiet: bool, new_letters: NewLetters | None) -> None:
        self._tally = tally
        self._plan = plan
        self._quiet = quiet
        self._shown = self._looked = time.monotonic()
        self._rate, self._speed = RecentRate(), RecentRate()
        self._warned = 0
        self._new_letters = new_letters
        self._grown = 0

    def is_due(self, every_s: float) -> bool:
        """Return True, and restart the interval, if the progress was not shown for `every_s` seconds."""
        now = time.monotonic()
        due = now - self._shown >= every_s
        if due:
            self._shown = now
        return due

    def warn(self) -> None:
        """Warn of replayed events that failed again since the last call."""
        count = self._tally.failed_again
        if count > self._warned:
            self._warned = count
            console.err(
                f"warning: {count} replayed events have failed again; Ctrl-C stops, --abort-on-refail N does so"
            )

    def look(self) -> None:
        """Warn of new dead letters, at most every two seconds, and when their number has doubled."""
        now = time.monotonic()
        if self._new_letters is None or not self._tally.sweeping or now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        grown = self._new_letters()
        if self._tally.sweeping and grown > 2 * self._grown:
            self._grown = grown
            console.err(f"warning: {grown} new dead letters have come to {self._plan.queue} since the start")

    def print_line(self) -> None:
        """Print the progress as a line."""
        if not self._quiet:
            console.err(self._line())

    def update_line(self) -> None:
        """Print the progress over the previous line."""
        console.progress(self._line())

    def _line(self) -> str:
        tally, depth = self._tally, self._plan.known_depth
        rate, speed = self._rate.of(tally.replayed), self._speed.of(tally.taken)
        replayed = f"{tally.replayed} replayed, {rate:.0f}/s"
        if tally.restored or not depth:
            return f"{replayed}, {tally.restored} of {tally.staged} put back" if tally.staged else replayed
        done = min(tally.taken / depth, 1.0)
        eta = f"{(depth - tally.taken) / speed:.0f} s left" if speed else "- s left"
        return f"[{'#' * int(20 * done):<20}] {tally.taken} of {depth}, {replayed}, {eta}"
