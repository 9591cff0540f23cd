"""What the HTTP side counts, and the metrics of the gateway, made when they are scraped."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from infertool.gateway.problem import Reason

if TYPE_CHECKING:
    from prometheus_client.core import Metric

PREFIX: Final = "infertool_gateway_"
BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0)
_PASSED: Final = "passed"
# Methods that have a label of their own: a client may send any.
_METHODS: Final = {"GET", "POST", "DELETE", "HEAD"}


class Histogram:
    """Counts durations by bucket."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def add(self, duration_s: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(BOUNDS_S, duration_s)] += 1
        self.total_s += duration_s

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulated counts by upper bound."""
        found, so_far = [], 0
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self.counts, strict=True):
            so_far += count
            found.append((bound, float(so_far)))
        return found


class Counts:
    """Counts of the HTTP side. For one event loop."""

    def __init__(self) -> None:
        self.steps: Counter[tuple[str, str, str]] = Counter()
        self.hung_up: Counter[str] = Counter()
        self.responses: Counter[tuple[str, int]] = Counter()
        self.durations = Histogram()

    def passed(self, step: str, class_name: str) -> None:
        """Count a request that passed a step of the chain."""
        self.steps[step, _PASSED, class_name] += 1

    def refused(self, step: str, reason: Reason, class_name: str) -> None:
        """Count a request that a step refused."""
        self.steps[step, reason.name.lower(), class_name] += 1

    def gone(self, step: str) -> None:
        """Count a client that hung up."""
        self.hung_up[step] += 1

    def answered(self, method: str, status: int, duration_s: float) -> None:
        """Count a response, and the time from the request's headers to its end."""
        self.responses[method if method in _METHODS else "other", status] += 1
        self.durations.add(duration_s)


class Collector:
    """Collects the metrics. `gauges` returns values by name: a number, or numbers by label value."""

    def __init__(self, counts: Counts, gauges: Callable[[], Mapping[str, Any]], refused: Mapping[str, int]) -> None:
        self._counts = counts
        self._gauges = gauges
        self._refused = refused

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        from prometheus_client.core import (  # noqa: PLC0415  (only a scrape needs it)
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        counts = self._counts
        steps = CounterMetricFamily(
            f"{PREFIX}steps", "Requests by step of the chain, and whether they passed or why not.",
            labels=("step", "outcome", "class"),
        )  # fmt: skip
        for (step, outcome, name), number in counts.steps.items():
            steps.add_metric((step, outcome, name), number)
        yield steps
        responses = CounterMetricFamily(f"{PREFIX}responses", "Responses.", labels=("method", "status"))
        for (method, status), number in counts.responses.items():
            responses.add_metric((method, str(status)), number)
        yield responses
        hung_up = CounterMetricFamily(f"{PREFIX}hung_up", "Clients that hung up, by step.", labels=("step",))
        for step, number in counts.hung_up.items():
            hung_up.add_metric((step,), number)
        yield hung_up
        connections = CounterMetricFamily(
            f"{PREFIX}connections_ended", "Connections that were refused or ended by the gateway.", labels=("reason",)
        )
        for reason, number in self._refused.items():
            connections.add_metric((reason,), number)
        yield connections
        durations = HistogramMetricFamily(
            f"{PREFIX}response_duration_seconds", "Time from the headers of a request to the end of its response."
        )
        durations.add_metric((), counts.durations.buckets(), counts.durations.total_s)
        yield durations
        for name, value in self._gauges().items():
            is_count = name in COUNTERS
            meaning, label = COUNTERS[name] if is_count else GAUGES.get(name, (name.replace("_", " "), "name"))
            kind: Any = CounterMetricFamily if is_count else GaugeMetricFamily
            if isinstance(value, Mapping):
                labelled = kind(PREFIX + name, meaning, labels=(label or "name",))
                for key, number in value.items():
                    if number is not None:
                        labelled.add_metric((str(key),), number)
                yield labelled
            elif value is not None:
                yield kind(PREFIX + name, meaning, value=value)


# Meaning, and the label of the values where there are several.
GAUGES: Final = {
    "connections": ("Open connections.", ""),
    "waits": ("Callers that wait for a result.", ""),
    "streams": ("Open streams of events.", ""),
    "body_bytes": ("Bytes of bodies that are being read.", ""),
    "ready": ("1 while requests are taken.", ""),
    "credentials_ok": ("1 while the keys file and the key set could be read.", ""),
    "tls_ok": ("1 while the newest TLS files could be read.", ""),
    "waiting": ("Requests that are accepted and not given to the broker.", "class"),
    "unfinished": ("Requests that are accepted and have not ended.", ""),
    "held_bytes": ("Bytes of requests and outcomes in memory.", ""),
    "at_broker": ("Requests that the broker has.", "queue"),
    "in_broker": ("Requests that the consumer has.", ""),
    "broker_limit": ("Requests that the broker is given at most.", "queue"),
    "predicted_wait_seconds": ("Time that a new request would wait; absent where no rate is known.", "class"),
    "drain_per_s": ("Requests that finish in a second while there is work.", "queue"),
    "drain_rate": ("Requests that finish in a second while there is work.", ""),
    "store_bytes": ("Size of the store of requests.", ""),
    "store_failing": ("1 while the store cannot be written.", ""),
    "webhooks_waiting": ("Webhooks that are still to be delivered.", ""),
}
# Figures that only grow.
COUNTERS: Final = {
    "webhooks": ("Attempts of webhooks, and webhooks by how they ended.", "outcome"),
    "ended": ("Requests by how they ended.", "outcome"),
    "engine_refused": ("Requests that the engine refused.", "reason"),
    "replies_dropped": ("Replies that were of no use.", "why"),
    "cache": ("Requests that were looked up in the cache of results.", "result"),
    "sent_again": ("Requests that were sent again after a connection was lost.", ""),
}
