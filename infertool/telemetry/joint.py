"""The figures of several processes as if they were one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from infertool.telemetry.latencies import Latencies, Percentiles
from infertool.telemetry.stats import COUNTS, Report, Snapshot, rate

# Of several circuits the worst is told.
_CIRCUITS = ("open", "half-open", "closed")


def joint(reports: Sequence[Report], latest: Sequence[Report], running: Sequence[Report]) -> Snapshot:
    """Return the sum of `reports`.

    Circuit and adapted numbers are what each place in the team told `latest`; links and flow those of what is `running`.
    """
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    for report in reports:
        counts.update(report.counts)
    first = min((r.first_delivery for r in reports if r.first_delivery is not None), default=None)
    last = max((r.last_settlement for r in reports if r.last_settlement is not None), default=None)
    return Snapshot(
        counts=dict(counts),
        rate=rate(counts, first, last),
        paused=any(report.paused for report in running),
        links=_links(running),
        circuit=_circuit(latest),
        tuned=_tuned(latest),
        latency_ms=_merged(report.latency for report in reports),
        processing_ms=_merged(report.processing for report in reports),
    )


def _circuit(reports: Sequence[Report]) -> str:
    states = {report.circuit for report in reports}
    return next((state for state in _CIRCUITS if state in states), "none")


def _merged(histograms: Iterable[str]) -> Percentiles:
    latencies = Latencies()
    for histogram in histograms:
        latencies.merge(Latencies.decode(histogram))
    return latencies.percentiles()


def _links(running: Sequence[Report]) -> dict[str, str]:
    """Return each side's state, with how many processes are in it when not all are in the same."""
    sides = {side: Counter(r.links[side] for r in running if side in r.links) for r in running for side in r.links}
    return {
        side: " ".join(state if len(states) == 1 else f"{state} {count}" for state, count in states.items())
        for side, states in sides.items()
    }


def _tuned(latest: Sequence[Report]) -> dict[str, int]:
    """Return how many calls may run in all, and the largest batch size."""
    values: dict[str, list[int]] = {}
    for report in latest:
        for name, value in report.tuned.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) if name == "concurrency" else max(found) for name, found in values.items()}
