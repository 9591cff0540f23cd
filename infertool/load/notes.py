"""Notes of a report: sentences on what limited a run (generator, broker, lost connections) and what is unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from infertool.load.options import LoadOptions
from infertool.load.record import Counts
from infertool.load.work import WorkEnd
from infertool.telemetry.latencies import Percentiles

# A note is made from these shares on: of the planned events, of the time, of a core.
_SOME_LATE: Final = 0.01
_MANY_LATE: Final = 0.1
_LONG_BLOCKED: Final = 0.02
_BUSY: Final = 0.9
_LONG_OVERTIME_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The facts of a run that notes are made from. `losses` counts lost connections: of "broker" and "phoenix".

    Unless `dead_exact`, the counted dead letters may include those of other producers.
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


def notes(facts: RunFacts) -> tuple[str, ...]:
    """Return the notes that a reader of the report needs."""
    found = (*facts.end.deaths, *_refused(facts), *_limits(facts), *_dropped(facts), *_lost(facts), *_uncounted(facts))
    return tuple(note for note in found if note)


def _refused(facts: RunFacts) -> Sequence[str]:
    return [f"the broker refused {count} events: {reason}" for reason, count in facts.end.refusals.items()]


def _limits(facts: RunFacts) -> Sequence[str]:
    counts = facts.counts
    behind = counts.late + counts.dropped
    if facts.options.closed or not counts.planned or behind < counts.planned * _SOME_LATE:
        return []
    what = f"{behind} of {counts.planned} events were more than 10 ms late, or dropped"
    if facts.end.blocked_s > facts.elapsed_s * _LONG_BLOCKED:
        return [f"the broker was the limit: {what}; {_blocked(facts)}"]
    busy = facts.cpu_s / facts.elapsed_s / facts.options.processes if facts.elapsed_s else 0.0
    what += f" (slip p99 {facts.slip_ms.p99 or 0:.1f} ms, {busy * 100:.0f} % of a core for each process)"
    if behind < counts.planned * _MANY_LATE:
        return [f"the generator did not always get the processor in time: {what}"]
    advice = "add --processes" if busy > _BUSY else "something else kept it from the processor"
    return [f"the generator was the limit: {what}; {advice}"]


def _dropped(facts: RunFacts) -> Sequence[str]:
    found = [f"{count} events were dropped: they {why}" for why, count in facts.end.drops.items()]
    over_s = facts.elapsed_s - facts.planned_s
    if over_s >= _LONG_OVERTIME_S:
        found.append(f"the sending ended {over_s:.1f} s after the plan: what waited at its end was sent late")
    return found


def _blocked(facts: RunFacts) -> str:
    if facts.options.confirm:
        return (
            f"for {facts.end.blocked_s:.1f} s all {facts.options.in_flight} events of --in-flight waited for a receipt"
        )
    return f"for {facts.end.blocked_s:.1f} s it took nothing (it is slow, or its flow control holds producers back)"


def _lost(facts: RunFacts) -> Sequence[str]:
    broker, phoenix = facts.losses.get("broker", 0), facts.losses.get("phoenix", 0)
    return [
        f"the connection to the broker was lost {_times(broker)}: what was under way counts as sent, "
        "and the broker may not have it" if broker else "",
        f"the connection to Phoenix was lost {_times(phoenix)}: what came out meanwhile was not seen, "
        "and counts as lost" if phoenix else "",
    ]  # fmt: skip


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _uncounted(facts: RunFacts) -> Sequence[str]:
    counts = facts.counts
    if not facts.options.e2e:
        return []
    unknown = "the broker does not tell how deep its queues are, so "
    return [
        f"{unknown}dead letters were not counted" if counts.dead_lettered is None else "",
        f"{unknown}lost are also those that still wait" if counts.queued is None and counts.lost else "",
        f"{counts.queued} events were not seen, and may still be in the queue: it held {counts.queue_before or 0} "
        f"messages at the start and {counts.queue_after} at the end" if counts.queued else "",
        "the broker did not show every dead letter, so those of others may be among the counted ones"
        if not facts.dead_exact else "",
    ]  # fmt: skip
