"""The endpoint of a load run: its counts and latencies as metrics, and its health."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from infertool import __version__
from infertool.load.sides import Sides
from infertool.load.tally import Meter, Tally
from infertool.net.http_server import HttpServer, Request, Response
from infertool.telemetry.endpoint import health_response, metrics_response
from infertool.telemetry.health import HANGS_S, Condition, all_ok, at_most
from infertool.telemetry.metric_families import Definition, Histograms, Samples, families, times_of
from infertool.telemetry.process_metrics import COMMON_DEFINITIONS, common_samples
from infertool.telemetry.process_stats import ProcessMeter
from infertool.text.input import parse_listen_address

DEFINITIONS: Final = (
    Definition(
        "load_events",
        "counter",
        "Events by outcome: planned, sent, late, dropped, unsent, poison, confirmed, results, failures, timed_out, "
        "duplicates, out_of_order; as in the report, without the warm-up.",
        ("outcome",),
    ),
    Definition("load_warmup_events", "counter", "Events of the warm-up, by outcome.", ("outcome",)),
    Definition(
        "load_latency_seconds",
        "histogram",
        "Latencies: slip, send (--confirm), e2e (--e2e), reply (--rpc); up to a second old.",
        ("measure",),
        "seconds",
    ),
    Definition("connection_up", "gauge", "1 while the connection to the side is up.", ("side",)),
    Definition("reconnects", "counter", "Connections that were made after a loss.", ("side",)),
    *COMMON_DEFINITIONS,
)

# Counts that are zero before they are counted; others have no sample.
_FROM_THE_START: Final = {"planned": 0, "sent": 0, "late": 0, "dropped": 0, "unsent": 0}


class LoadEndpoint:
    """Serves `/metrics`, `/livez` and `/readyz` at `address`. Raises `ListenError` where it cannot listen.

    `ticked_at` tells when the run last counted a second (monotonic), None before and after its sending.
    """

    def __init__(
        self, address: str, *, tally: Tally, meter: Meter, sides: Sides, ticked_at: Callable[[], float | None]
    ) -> None:
        self._tally = tally
        self._meter = meter
        self._sides = sides
        self._ticked_at = ticked_at
        self._started = time.time()
        self._lock = threading.Lock()
        self._process = ProcessMeter(Path(os.curdir))
        self._shown: dict[bool, Counter[str]] = {warm: Counter(_FROM_THE_START) for warm in (False, True)}
        host, port = parse_listen_address(address)
        routes = {
            "/metrics": self._metrics,
            "/livez": lambda request: health_response(self._live(), request),
            "/readyz": lambda request: health_response(self._ready(), request),
        }
        self._server = HttpServer(host, port, routes, name="load-http")
        self.url = f"http://{self._server.address}"
        self.port = self._server.port
        self._server.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def _live(self) -> list[Condition]:
        ticked_at = self._ticked_at()
        behind_s = None if ticked_at is None else time.monotonic() - ticked_at
        return [at_most("seconds", behind_s, HANGS_S, "last counted {} ago")]

    def _ready(self) -> list[Condition]:
        up = dict(self._sides.up)
        known = up or {"broker": False}
        return [Condition(side, ok=is_up, value="up" if is_up else "down") for side, is_up in sorted(known.items())]

    def _metrics(self, request: Request) -> Response:
        with self._lock:
            process = self._process.measure()
            cpu_seconds = self._process.cpu_seconds
            events = {warm: self._counted(warm=warm) for warm in (False, True)}
        common = common_samples(
            process,
            version=__version__,
            cpu_seconds=cpu_seconds,
            started=self._started,
            live=all_ok(self._live()),
            ready=all_ok(self._ready()),
        )
        samples: dict[str, Samples] = {
            "load_events": _by(events[False]),
            "load_warmup_events": _by(events[True]),
            "connection_up": _by(dict(self._sides.up)),
            "reconnects": _by(dict(self._sides.reconnects)),
        }
        return metrics_response(families(DEFINITIONS, samples | common, self._latencies()), request)

    def _counted(self, *, warm: bool) -> Mapping[str, int]:
        """Return the totals. The run corrects them when a load process dies, and a counter must not go back."""
        shown = self._shown[warm]
        for name, count in self._tally.totals(warm=warm).items():
            shown[name] = max(shown[name], count)
        return shown.copy()

    def _latencies(self) -> dict[str, Histograms]:
        found = self._meter.copies().items()
        return {"load_latency_seconds": [((measure.value,), times_of(each)) for measure, each in found]}


def _by(counts: Mapping[str, float]) -> Samples:
    return [((name,), count) for name, count in sorted(counts.items())]
