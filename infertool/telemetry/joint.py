"""The figures of several processes as if they were one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from infertool.telemetry.latencies import Latencies
from infertool.telemetry.stats import COUNTS, Report, Snapshot, Stats, rate

# Of several circuits the worst is told.
_CIRCUITS = ("open", "half-open", "closed")


def summed(reports: Sequence[Report]) -> Report:
    """Return the counts and times of `reports` in one; of the other figures, those of the last."""
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    for report in reports:
        counts.update(report.counts)
    return replace(
        reports[-1],
        counts=dict(counts),
        first_delivery=min((r.first_delivery for r in reports if r.first_delivery is not None), default=None),
        last_settlement=max((r.last_settlement for r in reports if r.last_settlement is not None), default=None),
        latency=_merged(report.latency for report in reports).encode(),
        processing=_merged(report.processing for report in reports).encode(),
    )


def joint(reports: Sequence[Report], running: Sequence[Report]) -> Snapshot:
    """Return the figures of all `reports`, one for each process; links and flow are of those that are `running`."""
    if not reports:
        return Stats().snapshot()
    total = summed(reports)
    return Snapshot(
        counts=total.counts,
        rate=rate(total.counts, total.first_delivery, total.last_settlement),
        paused=any(report.paused for report in running),
        in_progress=sum(report.in_progress for report in running),
        window=sum(report.window for report in running),
        waiting=next((report.waiting for report in running if report.waiting is not None), None),
        unconfirmed=sum(report.unconfirmed for report in running),
        oldest_push_s=max((report.oldest_push_s for report in running), default=0.0),
        links=_links(running),
        circuit=_circuit(reports),
        tuned=_tuned(reports),
        latency=Latencies.decode(total.latency),
        processing=Latencies.decode(total.processing),
    )


def _circuit(reports: Sequence[Report]) -> str:
    states = {report.circuit for report in reports}
    return next((state for state in _CIRCUITS if state in states), "none")


def _merged(histograms: Iterable[str]) -> Latencies:
    latencies = Latencies()
    for histogram in histograms:
        latencies.merge(Latencies.decode(histogram))
    return latencies


def _links(running: Sequence[Report]) -> dict[str, str]:
    """Return each side's state, with how many processes are in it when not all are in the same."""
    sides = {side: Counter(r.links[side] for r in running if side in r.links) for r in running for side in r.links}
    return {
        side: " ".join(state if len(states) == 1 else f"{state} {count}" for state, count in states.items())
        for side, states in sides.items()
    }


def _tuned(reports: Sequence[Report]) -> dict[str, int]:
    """Return how many calls may run in all, and the largest batch size."""
    values: dict[str, list[int]] = {}
    for report in reports:
        for name, value in report.tuned.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) if name == "concurrency" else max(found) for name, found in values.items()}
