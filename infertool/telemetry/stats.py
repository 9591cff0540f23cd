"""Counts and latencies of one consumer run."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infertool.link import LinkState
from infertool.telemetry import observer as o
from infertool.telemetry.latencies import Latencies, Percentiles

_COUNTS = (
    "received", "succeeded", "failed", "dead_lettered", "retried", "redelivered", "recognised", "pushed", "confirmed",
    "reconnects", "handed_back",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures at one moment. `rate` is settled events a second, from the first delivery to the last settlement."""

    counts: dict[str, int]
    rate: float
    paused: bool
    links: dict[str, str]
    tuned: dict[str, int]
    latency_ms: Percentiles
    processing_ms: Percentiles

    def summary(self) -> dict[str, Any]:
        """Return the summary that `consume -o json` prints."""
        return {
            **self.counts,
            "rate": self.rate,
            **self.tuned,
            "latency_ms": self.latency_ms.as_dict(),
            "processing_ms": self.processing_ms.as_dict(),
        }


class Stats:
    """An observer that counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._latency = Latencies()
        self._processing = Latencies()
        self._first_delivery: float | None = None
        self._last_settlement: float | None = None
        self._paused = False
        self._links: dict[str, str] = {}
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
            case o.Pushed(count):
                counts["pushed"] += count
            case o.Confirmed(count):
                counts["confirmed"] += count
            case o.Succeeded(times):
                self._settled("succeeded", times)
            case o.DeadLettered(times):
                self._settled("dead_lettered", times)
            case o.Failed():
                counts["failed"] += 1
            case o.Retried():
                counts["retried"] += 1
            case o.Recognised():
                counts["recognised"] += 1
            case o.HandedBack(count):
                counts["handed_back"] += count
            case o.Flow(paused):
                self._paused = paused
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

    def snapshot(self) -> Snapshot:
        """Return the figures now."""
        with self._lock:
            return Snapshot(
                counts=dict(self._counts),
                rate=self._rate(),
                paused=self._paused,
                links=dict(self._links),
                tuned=dict(self._tuned),
                latency_ms=self._latency.percentiles(),
                processing_ms=self._processing.percentiles(),
            )

    def _rate(self) -> float:
        if self._first_delivery is None or self._last_settlement is None:
            return 0.0
        settled = self._counts["succeeded"] + self._counts["dead_lettered"]
        return round(settled / max(self._last_settlement - self._first_delivery, 1e-9), 1)
