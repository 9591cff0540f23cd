"""Counts and latencies of one consumer run."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infertool.link import LinkState
from infertool.telemetry import observer as o
from infertool.telemetry.latencies import Latencies, Percentiles

COUNTS = (
    "received", "succeeded", "failed", "dead_lettered", "retried", "redelivered", "recognised", "pushed", "confirmed",
    "reconnects", "handed_back", "held", "cache_hits", "circuit_opened",
)  # fmt: skip
_ONE_EACH: dict[type, str] = {
    o.Failed: "failed", o.Retried: "retried", o.Held: "held", o.Recognised: "recognised",
}  # fmt: skip
_SEVERAL: dict[type, str] = {
    o.Pushed: "pushed", o.Confirmed: "confirmed", o.CacheHit: "cache_hits", o.HandedBack: "handed_back",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures at one moment.

    `rate` is settled events a second, from the first delivery to the last settlement; `circuit` is the state of a
    remote model's circuit breaker, or "none". `waiting` is the number of messages in the queue that no consumer holds,
    None where the broker does not tell. `unconfirmed` pushes have no proof; the oldest waits since `oldest_push_s`.
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

    @property
    def settled(self) -> int:
        """How many events were settled."""
        return settled(self.counts)

    @property
    def latency_ms(self) -> Percentiles:
        """Times from delivery to settlement."""
        return self.latency.percentiles()

    @property
    def processing_ms(self) -> Percentiles:
        """Times that the model took."""
        return self.processing.percentiles()

    def summary(self) -> dict[str, Any]:
        """Return the summary that `consume -o json` prints."""
        return {
            **self.counts,
            "circuit": self.circuit,
            "rate": self.rate,
            **self.tuned,
            "latency_ms": self.latency_ms.as_dict(),
            "processing_ms": self.processing_ms.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one process, its histograms encoded.

    Times are monotonic, the same for all processes of a machine, in seconds.
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


def settled(counts: Mapping[str, int]) -> int:
    """Return the number of settled events."""
    return counts["succeeded"] + counts["dead_lettered"]


def rate(counts: Mapping[str, int], first_delivery: float | None, last_settlement: float | None) -> float:
    """Return settled events a second."""
    if first_delivery is None or last_settlement is None:
        return 0.0
    return round(settled(counts) / max(last_settlement - first_delivery, 1e-9), 1)


class Stats:
    """An observer that counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(COUNTS, 0)
        self._latency = Latencies()
        self._processing = Latencies()
        self._first_delivery: float | None = None
        self._last_settlement: float | None = None
        self._paused = False
        self._in_progress = o.InProgress(0, 0, None)
        self._unconfirmed = o.Unconfirmed(0, 0.0)
        self._links: dict[str, str] = {}
        self._circuit = "none"
        self._tuned: dict[str, int] = {}

    def __call__(self, happening: o.Happening) -> None:
        """Count what happened."""
        with self._lock:
            self._count(happening)

    def _count(self, happening: o.Happening) -> None:
        counts = self._counts
        match happening:
            case o.Received(count, redelivered):
                counts["received"] += count
                counts["redelivered"] += redelivered
                self._first_delivery = self._first_delivery or time.monotonic()
            case o.Predicted(times):
                self._processing.add(times)
            case o.Pushed(count) | o.Confirmed(count) | o.CacheHit(count) | o.HandedBack(count):
                counts[_SEVERAL[type(happening)]] += count
            case o.Succeeded(times):
                self._settled("succeeded", times)
            case o.DeadLettered(times):
                self._settled("dead_lettered", times)
            case o.Failed() | o.Retried() | o.Held() | o.Recognised():
                counts[_ONE_EACH[type(happening)]] += 1
            case o.Circuit(_, state):
                self._circuit = state
                counts["circuit_opened"] += state == "open"
            case o.Flow(paused):
                self._paused = paused
            case o.InProgress():
                self._in_progress = happening
            case o.Unconfirmed():
                self._unconfirmed = happening
            case o.Tuned(name, value):
                self._tuned[name] = value
            case o.Linked(side, event):
                self._links[side] = event.state.value
                counts["reconnects"] += event.state is LinkState.CONNECTED and event.epoch > 1
            case o.Warned():
                pass

    def _settled(self, name: str, latencies_s: Sequence[float]) -> None:
        self._counts[name] += len(latencies_s)
        self._latency.add(latencies_s)
        self._last_settlement = time.monotonic()

    def report(self) -> Report:
        """Return the figures now in a form that can be added to others."""
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
            )

    def snapshot(self) -> Snapshot:
        """Return the figures now."""
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
            )
