"""Builds the stats document from the reports of a consumer's processes, once a second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from infertool.net.connection_state import ConnectionState
from infertool.telemetry import health
from infertool.telemetry.details import Details, joined
from infertool.telemetry.history import History, Totals
from infertool.telemetry.latencies import Latencies
from infertool.telemetry.process_stats import ProcessMeter
from infertool.telemetry.signals import LagState
from infertool.telemetry.stats import Report, Snapshot, joint
from infertool.telemetry.stats_document import (
    AlertStats,
    ConnectionsStats,
    ConnectionStats,
    DeadLetterStats,
    ModelStats,
    ProgressStats,
    QueueStats,
    StatsDocument,
    WindowStats,
)

# Rates of less than this are zero: a queue does not drain at a message a day.
_LEAST_RATE: Final = 1e-4


class Reporting(Protocol):
    """A consumer of one process or of several."""

    @property
    def stopping(self) -> bool:
        """True once it takes no more events."""

    def reports(self) -> tuple[list[Report], list[Report]]:
        """Return the reports of all its processes so far, and those of the running ones."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change while a consumer runs."""

    consumer: str
    version: str
    queue: str
    dead_letter_queue: str
    model: str


@dataclass(frozen=True, slots=True)
class Now:
    """The figures of this moment."""

    snapshot: Snapshot
    details: Details
    running: Sequence[Report]
    at: float


class StatsBuilder:
    """Keeps the past that rates need. `sample` is called by one thread; `now` by any."""

    def __init__(self, source: Reporting, identity: Identity, state_dir: Path, stuck_after_s: float) -> None:
        self._source = source
        self._identity = identity
        self._stuck_after_s = stuck_after_s
        self._history = History()
        self._meter = ProcessMeter(state_dir)
        self._started = time.time()
        self.cpu_seconds = 0.0
        self.events_a_call = 1.0
        """See `History`."""
        self.document = self.sample()

    def now(self) -> Now:
        """Return the figures of this moment."""
        reports, running = self._source.reports()
        details = [report.details for report in reports if report.details]
        live = [report.details for report in running if report.details]
        return Now(joint(reports, running), joined(details, live), running, time.monotonic())

    def sample(self, alerts: Sequence[AlertStats] = ()) -> StatsDocument:
        """Take a sample, about once a second, and return the new document."""
        now = self.now()
        self._history.add(_totals(now), now.at)
        self.document = self._build(now, alerts)
        self.cpu_seconds = self._meter.cpu_seconds
        self.events_a_call = self._history.events_a_call()
        return self.document

    def _build(self, now: Now, alerts: Sequence[AlertStats]) -> StatsDocument:
        identity, snapshot, details = self._identity, now.snapshot, now.details
        rate = self._history.rates()
        wall = time.time()
        return StatsDocument(
            time=round(wall, 3),
            started=round(self._started, 3),
            uptime_s=round(wall - self._started, 3),
            version=identity.version,
            consumer=identity.consumer,
            processes=len(now.running),
            queue=self._queue(now, rate.settled),
            dlq=DeadLetterStats(
                name=identity.dead_letter_queue, depth=details.queue.dead_letters, rate=rate.dead_lettered
            ),
            rate=rate,
            latency=self._history.latencies(),
            errors=self._history.errors(),
            model=ModelStats(
                name=identity.model,
                version=details.model_version,
                circuit=snapshot.circuit,
                batch_size=snapshot.tuned.get("batch_size"),
            ),
            process=self._meter.measure(ahead_s=details.ahead_s),
            connections=ConnectionsStats(broker=_connection("broker", now), phoenix=_connection("phoenix", now)),
            window=WindowStats(
                in_progress=snapshot.in_progress,
                limit=snapshot.window,
                unconfirmed=snapshot.unconfirmed,
                oldest_push_s=round(snapshot.oldest_push_s, 3),
                paused=snapshot.paused,
            ),
            progress=self._progress(now),
            counts=dict(snapshot.counts),
            alerts=tuple(alerts),
        )

    def _queue(self, now: Now, settled_rate: float) -> QueueStats:
        state, depth = now.details.queue, now.snapshot.waiting
        drain_s = None
        if depth is not None and (depth == 0 or settled_rate > _LEAST_RATE):
            drain_s = round(depth / max(settled_rate, _LEAST_RATE), 3)
        lag = now.snapshot.lag
        return QueueStats(
            name=self._identity.queue,
            lag=lag.messages if lag else None,
            lag_s=_lag_s(lag) if lag else None,
            lost=lag.lost if lag else None,
            gap=lag.gap if lag else None,
            depth=depth,
            unacked=state.unacked,
            consumers=state.consumers,
            oldest_s=None if state.oldest_s is None else round(state.oldest_s, 3),
            arrival_rate=self._history.arrival_rate(),
            drain_s=drain_s,
        )

    def _progress(self, now: Now) -> ProgressStats:
        stuck = any(
            report.details is not None and health.is_stuck(report, report.details, now.at, self._stuck_after_s)
            for report in now.running
        )
        return ProgressStats(idle_s=round(health.idle_s(now.details, now.at), 3), stuck=stuck)


def _lag_s(lag: LagState) -> float | None:
    # Where nothing waits that is known: a rule on the age must be able to resolve.
    seconds = 0.0 if lag.messages == 0 else lag.seconds
    return None if seconds is None else round(seconds, 3)


def _totals(now: Now) -> Totals:
    snapshot, details = now.snapshot, now.details
    return Totals(
        counts=snapshot.counts,
        event=snapshot.latency,
        inference=snapshot.processing,
        age=Latencies.decode(details.age),
        confirm=Latencies.decode(details.confirm),
        enqueued=details.queue.enqueued,
        batch_sizes=details.batch_sizes,
    )


def _connection(side: str, now: Now) -> ConnectionStats:
    """Return the state of a side, which is up when it is up in every running process."""
    state = now.snapshot.links.get(side)
    if state is None:
        return ConnectionStats()
    since = now.details.link_since.get(side)
    return ConnectionStats(
        up=state == ConnectionState.CONNECTED.value,
        state=state,
        since_s=None if since is None else round(now.at - since, 3),
        reconnects=now.details.reconnects.get(side, 0),
    )
