"""What a running replay shows: a progress bar on a terminal, a line now and then elsewhere, and its sum."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from infertool.brokers.port import Depth
from infertool.cli import console
from infertool.cli.repeated import repeated
from infertool.deadletter import names
from infertool.deadletter.decide import Fate, Fault, Plan
from infertool.deadletter.tally import MOST_NAMED, Tally
from infertool.link import LinkEvent, LinkState

STOPPING = (
    "stopping after this transaction, and putting back what is staged; "
    "Ctrl-C again leaves that to the next run (nothing is lost)"
)
_MOST_NAMED = 20
_LINE_EVERY_S = 5.0
_BAR_EVERY_S = 0.25
_LOOK_EVERY_S = 2.0


def say_link(event: LinkEvent) -> None:
    """Tell of a lost connection."""
    if event.state is LinkState.LOST:
        console.err(f"lost {event.address}: {event.reason}; connecting again")


def sentence(tally: Tally, plan: Plan) -> str:
    """Return what was moved and what remains, in one line."""
    verb = "copied" if plan.copy else "replayed"
    parts = [f"{verb} {tally.replayed}"]
    for name, count in (
        ("refused", tally.faults[Fault.REFUSED]),
        ("never confirmed, which may have arrived", tally.faults[Fault.UNCONFIRMED]),
        ("parked", tally.fates[Fate.PARK]),
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
        parts.append(f"{left} still in {names.staging(plan.queue)}: the next run puts them back")
    return f"{', '.join(parts)}; {remaining(tally, plan)} in {plan.queue}; {tally.seconds:.1f} s"


def tell_reasons(tally: Tally) -> None:
    """Say why letters stay, and name those that were tried and did not get through."""
    for reason, count in tally.reasons.most_common():
        if count:
            console.err(f"  {count} stay: {reason}")
    for named in tally.named[:_MOST_NAMED]:
        event = "" if named.event_id == named.message_id else f" (event id {named.event_id})"
        console.err(f"  {named.fault}: {named.message_id}{event}: {named.why}")
    if (more := tally.faults.total() - _MOST_NAMED) > 0:
        console.err(f"  and {more} more; -o json names {MOST_NAMED}, --audit all")


def remaining(tally: Tally, plan: Plan) -> str:
    """Return how many of those that were there at the start remain."""
    if plan.depth is None:
        return "an unknown number remains"
    moved = tally.fates[Fate.PARK] + (0 if plan.copy else tally.replayed)
    return f"{max(plan.depth - moved, 0)} of {plan.depth} remain"


class Growth:
    """How many dead letters came to the queue since the start, as far as the broker counts.

    Those of a deep queue lie behind all that the run has yet to go through, so it would see them last.
    """

    def __init__(self, measure: Callable[[], Depth | None]) -> None:
        self._measure = measure
        self._start = self._enqueued()

    def _enqueued(self) -> int | None:
        depth = self._measure()
        return depth.enqueued if depth else None

    def __call__(self) -> int:
        """Return the number now; 0 where the broker does not count."""
        now = None if self._start is None else self._enqueued()
        return 0 if now is None or self._start is None else max(now - self._start, 0)


@contextmanager
def shown(tally: Tally, plan: Plan, *, quiet: bool, growth: Growth | None = None) -> Iterator[None]:
    """Show the progress while the block runs; warn of replays that failed again."""
    bar = sys.stderr.isatty() and not quiet
    watch = _Watch(tally, plan, quiet=quiet, growth=growth)
    target, every = (watch.draw, _BAR_EVERY_S) if bar else (watch.tell, _LINE_EVERY_S)

    def look() -> None:
        watch.warn()
        watch.look()
        if watch.is_due(every):
            target()

    try:
        with repeated(look, _BAR_EVERY_S):
            yield
    finally:
        watch.warn()
        if bar:
            console.err("")


class _Watch:
    def __init__(self, tally: Tally, plan: Plan, *, quiet: bool, growth: Growth | None) -> None:
        self._tally = tally
        self._plan = plan
        self._quiet = quiet
        self._began = self._shown = time.monotonic()
        self._warned = 0
        self._growth = growth
        self._grown = 0
        self._looked = self._began

    def is_due(self, every_s: float) -> bool:
        """Say whether the progress was not shown for so long."""
        now = time.monotonic()
        due = now - self._shown >= every_s
        if due:
            self._shown = now
        return due

    def warn(self) -> None:
        """Tell of replays that came back since the last time."""
        count = self._tally.failed_again
        if count > self._warned:
            self._warned = count
            console.err(
                f"warning: {count} replayed events have failed again; Ctrl-C stops, --abort-on-refail N does so"
            )

    def look(self) -> None:
        """Tell of new dead letters, at most every two seconds, and only when there are twice as many as last time."""
        now = time.monotonic()
        if self._growth is None or not self._tally.sweeping or now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        grown = self._growth()
        if self._tally.sweeping and grown > 2 * self._grown:
            self._grown = grown
            console.err(f"warning: {grown} new dead letters have come to {self._plan.queue} since the start")

    def tell(self) -> None:
        """Write a line."""
        if not self._quiet:
            console.err(self._line())

    def draw(self) -> None:
        """Write over the last line."""
        console.progress(self._line())

    def _line(self) -> str:
        tally, depth = self._tally, self._plan.known_depth
        elapsed = time.monotonic() - self._began
        speed = tally.taken / elapsed if elapsed else 0.0
        rate = f"{tally.replayed} replayed, {tally.replayed / elapsed:.0f}/s" if elapsed else ""
        if tally.restored or not depth:
            return f"{rate}, {tally.restored} of {tally.staged} put back" if tally.staged else rate
        done = min(tally.taken / depth, 1.0)
        eta = f"{(depth - tally.taken) / speed:.0f} s left" if speed else "- s left"
        return f"[{'#' * int(20 * done):<20}] {tally.taken} of {depth}, {rate}, {eta}"
