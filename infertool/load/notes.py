"""What limited a run, in sentences: the generator itself, the broker, or connections that were lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from infertool.load.options import LoadOptions
from infertool.load.record import Counts
from infertool.load.work import WorkEnd
from infertool.telemetry.latencies import Percentiles

# From these shares on something is worth a word: of the planned events, of the time, of a core.
_SOME_LATE: Final = 0.01
_MANY_LATE: Final = 0.1
_LONG_BLOCKED: Final = 0.02
_BUSY: Final = 0.9
_LONG_OVERTIME_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run has seen. `losses` counts lost connections by side, "broker" and "phoenix".

    Unless `dead_exact`, dead letters of others may be among the counted ones.
    """

    options: LoadOptions
    counts: Counts
    elapsed_s: float
    planned_s: float
    cpu_s: float
    slip_ms: Percentiles
    end: WorkEnd
    losses: Mapping[str, int]
    dead_exact: bool


def notes(seen: Seen) -> tuple[str, ...]:
    """Return what a reader must know of a run."""
    found = (*seen.end.deaths, *_refused(seen), *_limits(seen), *_dropped(seen), *_lost(seen), *_uncounted(seen))
    return tuple(note for note in found if note)


def _refused(seen: Seen) -> Sequence[str]:
    return [f"the broker refused {count} events: {reason}" for reason, count in seen.end.refusals.items()]


def _limits(seen: Seen) -> Sequence[str]:
    counts = seen.counts
    behind = counts.late + counts.dropped
    if seen.options.closed or not counts.planned or behind < counts.planned * _SOME_LATE:
        return []
    what = f"{behind} of {counts.planned} events were more than 10 ms late, or dropped"
    if seen.end.blocked_s > seen.elapsed_s * _LONG_BLOCKED:
        return [f"the broker was the limit: {what}; {_blocked(seen)}"]
    busy = seen.cpu_s / seen.elapsed_s / seen.options.processes if seen.elapsed_s else 0.0
    what += f" (slip p99 {seen.slip_ms.p99 or 0:.1f} ms, {busy * 100:.0f} % of a core for each process)"
    if behind < counts.planned * _MANY_LATE:
        return [f"the generator did not always get the processor in time: {what}"]
    advice = "add --processes" if busy > _BUSY else "something else kept it from the processor"
    return [f"the generator was the limit: {what}; {advice}"]


def _dropped(seen: Seen) -> Sequence[str]:
    found = [f"{count} events were dropped: they {why}" for why, count in seen.end.drops.items()]
    over_s = seen.elapsed_s - seen.planned_s
    if over_s >= _LONG_OVERTIME_S:
        found.append(f"the sending ended {over_s:.1f} s after the plan: what waited at its end was sent late")
    return found


def _blocked(seen: Seen) -> str:
    if seen.options.confirm:
        return f"for {seen.end.blocked_s:.1f} s all {seen.options.in_flight} events of --in-flight waited for a receipt"
    return f"for {seen.end.blocked_s:.1f} s it took nothing (it is slow, or its flow control holds producers back)"


def _lost(seen: Seen) -> Sequence[str]:
    broker, phoenix = seen.losses.get("broker", 0), seen.losses.get("phoenix", 0)
    return [
        f"the connection to the broker was lost {_times(broker)}: what was under way counts as sent, "
        "and the broker may not have it" if broker else "",
        f"the connection to Phoenix was lost {_times(phoenix)}: what came out meanwhile was not seen, "
        "and counts as lost" if phoenix else "",
    ]  # fmt: skip


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _uncounted(seen: Seen) -> Sequence[str]:
    counts = seen.counts
    if not seen.options.e2e:
        return []
    unknown = "the broker does not tell how deep its queues are, so "
    return [
        f"{unknown}dead letters were not counted" if counts.dead_lettered is None else "",
        f"{unknown}lost are also those that still wait" if counts.queued is None and counts.lost else "",
        f"{counts.queued} events were not seen, and may still be in the queue: it held {counts.queue_before or 0} "
        f"messages at the start and {counts.queue_after} at the end" if counts.queued else "",
        "the broker did not show every dead letter, so those of others may be among the counted ones"
        if not seen.dead_exact else "",
    ]  # fmt: skip
