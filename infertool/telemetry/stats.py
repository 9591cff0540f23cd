"""Statistics of consumers: counts and latencies of a run, sums over processes, and figures of the last seconds."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from infertool.net.connection_state import ConnectionState
from infertool.telemetry import signals
from infertool.telemetry.details import DetailCounter, Details, joined, merged
from infertool.telemetry.latencies import Latencies, Percentiles

COUNTS = (
    "received", "succeeded", "failed", "dead_lettered", "retried", "redelivered", "recognised", "pushed", "confirmed",
    "reconnects", "handed_back", "revoked", "delayed", "held", "cache_hits", "circuit_opened",
    "replied", "replies_lost", "expired", "caller_gone", "traces_ignored", "spans_dropped",
)  # fmt: skip
_ONE_EACH: dict[type, str] = {
    signals.Failed: "failed",
    signals.Retried: "retried",
    signals.Deferred: "held",
    signals.DuplicateDelivery: "recognised",
    signals.ReplyLost: "replies_lost",
    signals.TraceIgnored: "traces_ignored",
}
_SEVERAL: dict[type, str] = {
    signals.Pushed: "pushed",
    signals.Confirmed: "confirmed",
    signals.CacheHit: "cache_hits",
    signals.HandedBack: "handed_back",
    signals.Revoked: "revoked",
    signals.Delayed: "delayed",
    signals.Replied: "replied",
    signals.SpansDropped: "spans_dropped",
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The statistics at one moment.

    `rate` is settled events a second, from the first delivery to the last settlement. `circuit` is the state of a
    remote model's circuit breaker, or "none". `waiting` is the number of messages in the queue that no consumer holds;
    None if the broker does not report it. The oldest of the `unconfirmed` pushes was sent `oldest_push_s` seconds ago.
    """

    counts: dict[str, int]
    rate: float
    in_progress: int
    window: int
    waiting: int | None
    unconfirmed: int
    oldest_push_s: float
    paused: bool
    links: dict[str, str]
    circuit: str
    tuned: dict[str, int]
    latency: Latencies
    processing: Latencies
    lag: signals.LagState | None = None
    """None where the broker does not keep what is settled, or does not tell it."""

    @property
    def settled(self) -> int:
        """The number of settled events."""
        return settled(self.counts)

    @property
    def latency_ms(self) -> Percentiles:
        """Times from delivery to settlement."""
        return self.latency.percentiles()

    @property
    def processing_ms(self) -> Percentiles:
        """Times of the model calls."""
        return self.processing.percentiles()

    def summary(self) -> dict[str, Any]:
        """Return the summary for `consume -o json`."""
        return {
            **self.counts,
            "circuit": self.circuit,
            "rate": self.rate,
            **({"lost_messages": self.lag.lost} if self.lag else {}),
            **self.tuned,
            "latency_ms": self.latency_ms.as_dict(),
            "processing_ms": self.processing_ms.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The statistics of one process, with encoded histograms; `details` while its metrics are on.

    Times are in seconds on the monotonic clock, which all processes of a machine share.
    """

    counts: dict[str, int]
    first_delivery: float | None
    last_settlement: float | None
    paused: bool
    in_progress: int
    window: int
    waiting: int | None
    unconfirmed: int
    oldest_push_s: float
    links: dict[str, str]
    circuit: str
    tuned: dict[str, int]
    latency: str
    processing: str
    details: Details | None = None
    lag: signals.LagState | None = None


def settled(counts: Mapping[str, int]) -> int:
    """Return the number of settled events."""
    return counts["succeeded"] + counts["dead_lettered"] + counts["expired"] + counts["caller_gone"]


def rate(counts: Mapping[str, int], first_delivery: float | None, last_settlement: float | None) -> float:
    """Return settled events a second."""
    if first_delivery is None or last_settlement is None:
        return 0.0
    return round(settled(counts) / max(last_settlement - first_delivery, 1e-9), 1)


class Stats:
    """An observer that counts signals and records latencies; with `detailed` also what metrics show beside."""

    def __init__(self, *, detailed: bool = False) -> None:
        self._details = DetailCounter() if detailed else None
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(COUNTS, 0)
        self._latency = Latencies()
        self._processing = Latencies()
        self._first_delivery: float | None = None
        self._last_settlement: float | None = None
        self._paused = False
        self._in_progress = signals.InProgress(0, 0, None)
        self._unconfirmed = signals.Unconfirmed(0, 0.0)
        self._links: dict[str, str] = {}
        self._lag: signals.LagState | None = None
        self._circuit = "none"
        self._tuned: dict[str, int] = {}

    def __call__(self, signal: signals.Signal) -> None:
        """Count `signal`."""
        with self._lock:
            self._count(signal)
            if self._details:
                self._details(signal)

    def _count(self, signal: signals.Signal) -> None:
        counts = self._counts
        match signal:
            case signals.Received(count, redelivered):
                counts["received"] += count
                counts["redelivered"] += redelivered
                self._first_delivery = self._first_delivery or time.monotonic()
            case signals.Predicted(times):
                self._processing.add(times)
            case (
                signals.Pushed(count)
                | signals.Confirmed(count)
                | signals.CacheHit(count)
                | signals.HandedBack(count)
                | signals.Revoked(count)
                | signals.Delayed(count)
                | signals.Replied(count)
                | signals.SpansDropped(count)
            ):
                counts[_SEVERAL[type(signal)]] += count
            case signals.Succeeded(times):
                self._settled("succeeded", times)
            case signals.DeadLettered(times):
                self._settled("dead_lettered", times)
            case signals.Dropped(_, stage, latency_s):
                self._settled(stage, [latency_s])
            case (
                signals.Failed()
                | signals.Retried()
                | signals.Deferred()
                | signals.DuplicateDelivery()
                | signals.ReplyLost()
                | signals.TraceIgnored()
            ):
                counts[_ONE_EACH[type(signal)]] += 1
            case signals.Circuit(_, state):
                self._circuit = state
                counts["circuit_opened"] += state == "open"
            case signals.Flow(paused):
                self._paused = paused
            case signals.InProgress():
                self._in_progress = signal
            case signals.LagState():
                self._lag = signal
            case signals.Unconfirmed():
                self._unconfirmed = signal
            case signals.Tuned(name, value):
                self._tuned[name] = value
            case signals.ConnectionChanged(side, event):
                self._links[side] = event.state.value
                counts["reconnects"] += event.state is ConnectionState.CONNECTED and event.epoch > 1
            case _:
                pass

    def _settled(self, name: str, latencies_s: Sequence[float]) -> None:
        self._counts[name] += len(latencies_s)
        self._latency.add(latencies_s)
        self._last_settlement = time.monotonic()

    def report(self) -> Report:
        """Return the current statistics in a form that `joint` can sum."""
        with self._lock:
            return Report(
                counts=dict(self._counts),
                first_delivery=self._first_delivery,
                last_settlement=self._last_settlement,
                paused=self._paused,
                in_progress=self._in_progress.count,
                window=self._in_progress.window,
                waiting=self._in_progress.waiting,
                unconfirmed=self._unconfirmed.count,
                oldest_push_s=self._unconfirmed.oldest_s,
                links=dict(self._links),
                circuit=self._circuit,
                tuned=dict(self._tuned),
                latency=self._latency.encode(),
                processing=self._processing.encode(),
                details=self._details.details() if self._details else None,
                lag=self._lag,
            )

    def snapshot(self) -> Snapshot:
        """Return the current statistics."""
        with self._lock:
            return Snapshot(
                counts=dict(self._counts),
                rate=rate(self._counts, self._first_delivery, self._last_settlement),
                paused=self._paused,
                in_progress=self._in_progress.count,
                window=self._in_progress.window,
                waiting=self._in_progress.waiting,
                unconfirmed=self._unconfirmed.count,
                oldest_push_s=self._unconfirmed.oldest_s,
                links=dict(self._links),
                circuit=self._circuit,
                tuned=dict(self._tuned),
                latency=self._latency.copy(),
                processing=self._processing.copy(),
                lag=self._lag,
            )


# Of several circuits the worst state is shown; worst first.
_CIRCUITS = ("open", "half-open", "closed")


def summed(reports: Sequence[Report]) -> Report:
    """Return one report with the counts and times of all `reports`; other figures are those of the last."""
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    for report in reports:
        counts.update(report.counts)
    return replace(
        reports[-1],
        counts=dict(counts),
        first_delivery=min((r.first_delivery for r in reports if r.first_delivery is not None), default=None),
        last_settlement=max((r.last_settlement for r in reports if r.last_settlement is not None), default=None),
        latency=merged(report.latency for report in reports),
        processing=merged(report.processing for report in reports),
        details=_joined_details(reports),
        lag=_lag(reports, reports[-1:]),
    )


def joint(reports: Sequence[Report], running: Sequence[Report]) -> Snapshot:
    """Return the statistics of all processes' `reports`; connections and flow are those of the `running` ones."""
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
        lag=_lag(reports, running),
    )


def _lag(reports: Sequence[Report], running: Sequence[Report]) -> signals.LagState | None:
    """Return what the `running` ones say of their group; what each process lost adds up."""
    every = [report.lag for report in reports if report.lag]
    known = [report.lag for report in running if report.lag] or every[-1:]
    if not known:
        return None
    return signals.LagState(
        messages=max(lag.messages for lag in known),
        seconds=max((lag.seconds for lag in known if lag.seconds is not None), default=None),
        lost=sum(lag.lost for lag in every),
        gap=max(lag.gap for lag in known),
    )


def _circuit(reports: Sequence[Report]) -> str:
    states = {report.circuit for report in reports}
    return next((state for state in _CIRCUITS if state in states), "none")


def _joined_details(reports: Sequence[Report]) -> Details | None:
    """Return the details of one replica, whose processes followed each other."""
    details = [report.details for report in reports if report.details]
    if not details:
        return None
    latest = details[-1]
    return replace(
        joined(details, [latest]), ticks=latest.ticks, reported_at=latest.reported_at, made_at=latest.made_at
    )


def _links(running: Sequence[Report]) -> dict[str, str]:
    """Return each side's state; if the processes differ, each state with the number of processes in it."""
    sides = {side: Counter(r.links[side] for r in running if side in r.links) for r in running for side in r.links}
    return {
        side: " ".join(state if len(states) == 1 else f"{state} {count}" for state, count in states.items())
        for side, states in sides.items()
    }


def _tuned(reports: Sequence[Report]) -> dict[str, int]:
    """Return the total concurrency and the largest batch size."""
    values: dict[str, list[int]] = {}
    for report in reports:
        for name, value in report.tuned.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) if name == "concurrency" else max(found) for name, found in values.items()}


# Span of the recent figures, and interval of the samples. Seconds.
SPAN_S = 10.0
SAMPLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Recent:
    """Settled events a second and their latencies over the last `seconds`; zero before the second sample."""

    seconds: float
    rate: float
    latency_ms: Percentiles


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    settled: int
    latency: Latencies


class RecentFigures:
    """Computes the figures of the last `span_s` seconds from periodic snapshots.

    It compares totals, so it adds no cost to counting an event.
    """

    def __init__(self, span_s: float = SPAN_S) -> None:
        self._span_s = span_s
        self._samples: deque[_Sample] = deque()

    def add(self, snapshot: Snapshot, now: float) -> Recent:
        """Add the `snapshot` of time `now` (monotonic, seconds); return the figures since the sample `span_s` ago."""
        if not self._samples or now - self._samples[-1].at >= SAMPLE_S:
            self._samples.append(_Sample(now, snapshot.settled, snapshot.latency))
        # The first sample is the newest one that is at least the span old.
        while len(self._samples) > 2 and now - self._samples[1].at >= self._span_s:  # noqa: PLR2004
            self._samples.popleft()
        first = self._samples[0]
        seconds = now - first.at
        if seconds <= 0:
            return Recent(0.0, 0.0, Percentiles())
        settled = max(0, snapshot.settled - first.settled)
        return Recent(seconds, settled / seconds, snapshot.latency.percentiles_since(first.latency))
