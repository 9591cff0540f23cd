"""The metrics: what each is called and means, and its samples from the figures of a consumer."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from infertool.telemetry.details import TIMES_S, Details
from infertool.telemetry.latencies import Latencies
from infertool.telemetry.stats import Snapshot
from infertool.telemetry.stats_document import StatsDocument

if TYPE_CHECKING:
    from prometheus_client.core import Metric

PREFIX: Final = "infertool_"
SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
# Characters of a label's value; a producer can give a queue any name.
_LONGEST_LABEL: Final = 200
_CIRCUITS: Final = ("closed", "half-open", "open")

Samples = list[tuple[tuple[str, ...], float]]
Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric. `name` is without the prefix, and without `_total` of counters and `_info` of infos."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    prefix: str = PREFIX

    @property
    def full_name(self) -> str:
        """The name as it is queried; of a histogram the common part."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.kind, "")
        return f"{self.prefix}{self.name}{suffix}"


@dataclass(frozen=True, slots=True)
class Figures:
    """What the samples are made of: `document` is up to a second old, all else is of this moment."""

    document: StatsDocument
    snapshot: Snapshot
    details: Details
    cpu_seconds: float
    caches: bool
    live: bool
    ready: bool


_ALL: Final = (
    Definition("messages_received", "counter", "Messages received from the broker.", ("queue", "redelivered")),
    Definition(
        "messages_settled",
        "counter",
        "Messages settled, by outcome: succeeded, dead_lettered, expired, caller_gone; handed_back ones were not.",
        ("queue", "outcome"),
    ),
    Definition(
        "failures",
        "counter",
        "Events that failed for good, by stage and error type; the most frequent types by name, the rest as other.",
        ("stage", "error_type"),
    ),
    Definition("retries", "counter", "Attempts that failed and are tried again."),
    Definition("deferred", "counter", "Attempts that found the model unavailable; they do not count as attempts."),
    Definition("duplicates", "counter", "Redeliveries of known events, which are not processed again."),
    Definition("spans_dropped", "counter", "Spans that were not exported: no room, or the endpoint took none."),
    Definition("traces_ignored", "counter", "Events whose traceparent is none."),
    Definition("inference_duration_seconds", "histogram", "Time of a call of the model.", ("model",), "seconds"),
    Definition("event_duration_seconds", "histogram", "Time from delivery to settlement.", ("queue",), "seconds"),
    Definition(
        "event_age_seconds",
        "histogram",
        "Time from the producer's timestamp to settlement, of one event of each settled batch.",
        ("queue",),
        "seconds",
    ),
    Definition("batch_size", "histogram", "Events in one call of the model, where it takes batches.", ("model",)),
    Definition("window_messages", "gauge", "Unsettled messages that the consumer holds.", ("queue",)),
    Definition("window_limit", "gauge", "Unsettled messages that the consumer holds at most.", ("queue",)),
    Definition("publish_confirm_seconds", "histogram", "Time from a publication to its confirmation.", (), "seconds"),
    Definition("pushes_unconfirmed", "gauge", "Publications without a confirmation."),
    Definition("push_oldest_seconds", "gauge", "Age of the oldest publication without a confirmation.", (), "seconds"),
    Definition("flow_paused", "gauge", "1 while Phoenix asks to pause."),
    Definition("connection_up", "gauge", "1 while the connection to the side is up, in every process.", ("side",)),
    Definition("reconnects", "counter", "Connections that were made after a loss.", ("side",)),
    Definition("circuit_state", "gauge", "1 for the state of a remote model's circuit breaker.", ("state",)),
    Definition("cache_requests", "counter", "Events that were looked up in the result cache.", ("result",)),
    Definition("replies", "counter", "Replies to requests: sent, or lost because nobody can get them.", ("outcome",)),
    Definition(
        "queue_messages", "gauge", "Messages in the queue: ready, or unacked by a consumer.", ("queue", "state")
    ),
    Definition("queue_consumers", "gauge", "Subscriptions to the queue, of all processes and machines.", ("queue",)),
    Definition(
        "queue_oldest_message_age_seconds", "gauge", "Age of the message that waits longest.", ("queue",), "seconds"
    ),
    Definition(
        "queue_drain_seconds",
        "gauge",
        "Time until the queue is empty at the settled rate of the last minute; +Inf at a rate of zero.",
        ("queue",),
        "seconds",
    ),
    Definition("dead_letters", "gauge", "Messages in the dead-letter queue.", ("queue",)),
    Definition("live", "gauge", "1 unless a restart would help, as /livez says."),
    Definition("ready", "gauge", "1 while events can be taken and confirmed, as /readyz says."),
    Definition("build", "info", "The version of infertool and of Python.", ("version", "python")),
    Definition("model", "info", "The model.", ("model", "model_version")),
    Definition("cpu_limit_cores", "gauge", "Cores that the processes may use."),
    Definition("memory_limit_bytes", "gauge", "Memory that the control group may use.", (), "bytes"),
    Definition("state_disk_free_bytes", "gauge", "Free space of the state folder's file system.", (), "bytes"),
    Definition("state_disk_free_ratio", "gauge", "Its share of the whole file system.", (), "ratio"),
    Definition("clock_skew_seconds", "gauge", "How far a producer's clock was ahead of ours lately.", (), "seconds"),
    Definition(
        "process_cpu_seconds", "counter", "CPU time of all processes of this consumer.", (), "seconds", prefix=""
    ),
    Definition(
        "process_resident_memory_bytes", "gauge", "Resident memory of all its processes.", (), "bytes", prefix=""
    ),
    Definition("process_open_fds", "gauge", "Open files of the process that has most.", prefix=""),
    Definition("process_max_fds", "gauge", "Open files that a process may have.", prefix=""),
    Definition("process_start_time_seconds", "gauge", "Start of the consumer, in Unix time.", (), "seconds", prefix=""),
)
DEFINITIONS: Final[Mapping[str, Definition]] = {definition.name: definition for definition in _ALL}
_OUTCOMES: Final = ("succeeded", "dead_lettered", "expired", "caller_gone", "handed_back")


def collect(figures: Figures) -> Iterator[Metric]:
    """Return a family with samples for each metric that has any."""
    from prometheus_client.core import (  # noqa: PLC0415  (a consumer without metrics does not need it)
        CounterMetricFamily,
        GaugeMetricFamily,
        InfoMetricFamily,
    )

    counters, gauges = _counters(figures), _gauges(figures)
    for definition in _ALL:
        name, text, labels = f"{definition.prefix}{definition.name}", definition.meaning, definition.labels
        if definition.kind == "counter" and (found := counters.get(definition.name)):
            counter = CounterMetricFamily(name, text, labels=labels)
            for values, value in found:
                counter.add_metric(_labels(values), value)
            yield counter
        elif definition.kind == "gauge" and (found := gauges.get(definition.name)):
            gauge = GaugeMetricFamily(name, text, labels=labels)
            for values, value in found:
                gauge.add_metric(_labels(values), value)
            yield gauge
        elif definition.kind == "info":
            yield InfoMetricFamily(name, text, value=_info(definition, figures))
        elif definition.kind == "histogram" and (histogram := _histogram(definition, figures)):
            yield histogram


def _labels(values: Sequence[str]) -> list[str]:
    return [value[:_LONGEST_LABEL].encode("utf-8", "replace").decode() for value in values]


def _info(definition: Definition, figures: Figures) -> dict[str, str]:
    document = figures.document
    values = {
        "build": (document.version, platform.python_version()),
        "model": (document.model.name, document.model.version),
    }[definition.name]
    return dict(zip(definition.labels, _labels(values), strict=True))


def _counters(figures: Figures) -> dict[str, Samples]:
    counts, details, queue = figures.snapshot.counts, figures.details, figures.document.queue.name
    hits = counts["cache_hits"]
    return {
        "messages_received": [
            ((queue, "false"), counts["received"] - counts["redelivered"]),
            ((queue, "true"), counts["redelivered"]),
        ],
        "messages_settled": [((queue, outcome), counts[outcome]) for outcome in _OUTCOMES],
        "failures": [(key, count) for key, count in details.failures.items()],
        "retries": [((), counts["retried"])],
        "deferred": [((), counts["held"])],
        "duplicates": [((), counts["recognised"])],
        "spans_dropped": [((), counts["spans_dropped"])],
        "traces_ignored": [((), counts["traces_ignored"])],
        "reconnects": [((side,), details.reconnects.get(side, 0)) for side in figures.snapshot.links],
        "cache_requests": [
            (("hit",), hits),
            (("miss",), max(0, figures.snapshot.processing.count - hits)),
        ]
        if figures.caches
        else [],
        "replies": [(("sent",), counts["replied"]), (("lost",), counts["replies_lost"])],
        "process_cpu_seconds": [((), round(figures.cpu_seconds, 3))],
    }


def _gauges(figures: Figures) -> dict[str, Samples]:
    document, snapshot = figures.document, figures.snapshot
    queue, process, name = document.queue, document.process, document.queue.name
    drain_s = queue.drain_s
    if drain_s is None and queue.depth:
        drain_s = float("inf")
    single: dict[str, float | None] = {
        "pushes_unconfirmed": snapshot.unconfirmed,
        "push_oldest_seconds": round(snapshot.oldest_push_s, 3),
        "flow_paused": snapshot.paused,
        "live": figures.live,
        "ready": figures.ready,
        "cpu_limit_cores": process.cpu_limit,
        "memory_limit_bytes": process.memory_limit_bytes,
        "state_disk_free_bytes": process.disk_free_bytes,
        "state_disk_free_ratio": process.disk_free,
        "clock_skew_seconds": process.clock_skew_s,
        "process_resident_memory_bytes": process.memory_bytes,
        "process_open_fds": process.open_files,
        "process_max_fds": process.open_files_limit,
        "process_start_time_seconds": document.started,
    }
    of_queue: dict[str, float | None] = {
        "window_messages": snapshot.in_progress,
        "window_limit": snapshot.window,
        "queue_consumers": queue.consumers,
        "queue_oldest_message_age_seconds": queue.oldest_s,
        "queue_drain_seconds": drain_s,
    }
    states = {"ready": queue.depth, "unacked": queue.unacked}
    sides = {"broker": document.connections.broker.up, "phoenix": document.connections.phoenix.up}
    samples: dict[str, Samples] = {
        "queue_messages": [((name, state), count) for state, count in states.items() if count is not None],
        "dead_letters": [] if document.dlq.depth is None else [((document.dlq.name,), document.dlq.depth)],
        "connection_up": [((side,), up) for side, up in sides.items() if up is not None],
        "circuit_state": [((state,), state == snapshot.circuit) for state in _CIRCUITS]
        if snapshot.circuit != "none"
        else [],
    }
    samples |= {metric: [((), value)] for metric, value in single.items() if value is not None}
    return samples | {metric: [((name,), value)] for metric, value in of_queue.items() if value is not None}


def _histogram(definition: Definition, figures: Figures) -> Metric | None:
    from prometheus_client.core import Exemplar, HistogramMetricFamily  # noqa: PLC0415

    document, snapshot, details = figures.document, figures.snapshot, figures.details
    label = {"queue": document.queue.name, "model": document.model.name}
    family = HistogramMetricFamily(
        f"{definition.prefix}{definition.name}", definition.meaning, labels=definition.labels
    )
    labels = _labels([label[each] for each in definition.labels])
    if definition.name == "batch_size":
        sizes = details.batch_sizes
        if not sizes:
            return None
        below = [sum(count for size, count in sizes.items() if size <= edge) for edge in SIZES]
        total, count = float(sum(size * count for size, count in sizes.items())), sum(sizes.values())
        family.add_metric(labels, _edges(SIZES, below, count), total)
        return family
    times = {
        "inference_duration_seconds": lambda: snapshot.processing,
        "event_duration_seconds": lambda: snapshot.latency,
        "event_age_seconds": lambda: Latencies.decode(details.age),
        "publish_confirm_seconds": lambda: Latencies.decode(details.confirm),
    }[definition.name]()
    buckets: list[Any] = list(_edges(TIMES_S, times.buckets(TIMES_S), times.count))
    if definition.name == "event_duration_seconds":
        for index, exemplar in details.exemplars.items():
            buckets[index] = (*buckets[index], Exemplar({"trace_id": exemplar.trace_id}, exemplar.value_s, exemplar.at))
    family.add_metric(labels, buckets, times.total_s())
    return family


def _edges(edges: Sequence[float], below: Sequence[int], count: int) -> list[tuple[str, float]]:
    pairs = [
        (f"{edge:g}" if edge != int(edge) else f"{edge:.1f}", float(n)) for edge, n in zip(edges, below, strict=True)
    ]
    return [*pairs, ("+Inf", float(count))]
