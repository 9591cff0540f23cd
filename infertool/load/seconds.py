"""The clock of a run: every second it takes what was counted and measured, and hands it on."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from infertool.load.epoch import Epoch
from infertool.load.latency import Measure, Meter
from infertool.load.record import Second
from infertool.load.tally import Tally
from infertool.telemetry.latencies import Latencies

_COUNTS = ("planned", "sent", "late", "dropped", "unsent", "confirmed", "results", "failures", "duplicates")
OnCut = Callable[[Second, Mapping[Measure, Latencies]], None]


class Seconds:
    """Calls `on_cut` from a thread of its own, at the end of each second, and a last time by `stop`."""

    def __init__(self, epoch: Epoch, warmup_s: float, tally: Tally, meter: Meter, on_cut: OnCut) -> None:
        self._zero = epoch.mono + warmup_s
        self._tally = tally
        self._meter = meter
        self._on_cut = on_cut
        self._t = math.floor(-warmup_s)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loadgen-seconds", daemon=True)

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self) -> None:
        """Hand on what is left, and end."""
        self._stopped.set()
        self._thread.join()
        if self._t < 0:
            self._cut()
            self._t = 0
        self._cut()

    def _run(self) -> None:
        while not self._stopped.wait(self._zero + self._t + 1 - time.monotonic()):
            self._cut()
            self._t += 1

    def _cut(self) -> None:
        counts = self._tally.cut(warm=self._t < 0)
        histograms = self._meter.cut()
        times = {measure: latencies.percentiles() for measure, latencies in histograms.items()}
        second = Second(self._t, **{name: counts[name] for name in _COUNTS}, latency_ms=times)
        self._on_cut(second, histograms)
