"""The metrics of a consumer, and their samples from its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from infertool.telemetry.details import Details
from infertool.telemetry.latencies import Latencies
from infertool.telemetry.metric_families import Buckets, Definition, Histograms, Samples, families, times_of
from infertool.telemetry.process_metrics import HEALTH_DEFINITIONS, PROCESS_DEFINITIONS, common_samples
from infertool.telemetry.stats import Snapshot
from infertool.telemetry.stats_document import StatsDocument

if TYPE_CHECKING:
    from prometheus_client.core import Exemplar as PrometheusExemplar
    from prometheus_client.core import Metric

SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_CIRCUITS: Final = ("closed", "half-open", "open")
_OUTCOMES: Final = ("succeeded", "dead_lettered", "expired", "caller_gone", "handed_back", "revoked", "delayed")


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
    notifications_dropped: Mapping[str, int] = field(default_factory=dict)
    """By sink."""


_ALL: Final = (
    Definition("messages_received", "counter", "Messages received from the broker.", ("queue", "redelivered")),
    Definition(
        "messages_settled",
        "counter",
        "Messages by outcome: those handed_back or revoked are not settled.",
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
    Definition(
        "inference_duration_seconds",
        "histogram",
        "Time of a call of the model.",
        ("model", "model_version"),
        "seconds",
    ),
    Definition("event_duration_seconds", "histogram", "Time from delivery to settlement.", ("queue",), "seconds"),
    Definition(
        "event_age_seconds",
        "histogram",
        "Time from the producer's timestamp to settlement, of one event every 10 ms.",
        ("queue",),
        "seconds",
    ),
    Definition("batch_size", "histogram", "Events in one call of the model, where it takes batches.", ("model",)),
    Definition("batch_size_limit", "gauge", "The largest batch that pays, where the size adapts.", ("model",)),
    Definition("window_messages", "gauge", "Unsettled messages that the consumer holds.", ("queue",)),
    Definition("window_limit", "gauge", "Unsettled messages that the consumer holds at most.", ("queue",)),
    Definition(
        "publish_confirm_seconds",
        "histogram",
        "Time from a publication to its confirmation, of one publication every 10 ms.",
        (),
        "seconds",
    ),
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
    Definition(
        "lag_messages", "gauge", "Messages that the consumers have not settled (a broker that keeps them).", ("queue",)
    ),
    Definition("lag_seconds", "gauge", "Age of the oldest message that is not settled.", ("queue",), "seconds"),
    Definition("lost_messages", "counter", "Messages that the broker deleted before they were settled.", ("queue",)),
    Definition(
        "offset_gap",
        "gauge",
        "Largest distance from a partition's oldest unsettled message to its newest settled one.",
        ("queue",),
    ),
    Definition("dead_letters", "gauge", "Messages in the dead-letter queue.", ("queue",)),
    Definition("notifications_dropped", "counter", "Notifications of alert rules that a sink did not get.", ("sink",)),
    Definition(
        "stuck", "gauge", "1 while messages wait, connections are up, and nothing moves: progress.stuck of /stats."
    ),
    Definition("idle_seconds", "gauge", "Time since a message was received or an event settled.", (), "seconds"),
    *HEALTH_DEFINITIONS,
    Definition("model", "info", "The model.", ("model", "model_version")),
    Definition("cpu_limit_cores", "gauge", "Cores that the processes may use."),
    Definition("memory_limit_bytes", "gauge", "Memory that the control group may use.", (), "bytes"),
    Definition("state_disk_free_bytes", "gauge", "Free space of the state folder's file system.", (), "bytes"),
    Definition("state_disk_free_ratio", "gauge", "Its share of the whole file system.", (), "ratio"),
    Definition("clock_skew_seconds", "gauge", "How far a producer's clock was ahead of ours lately.", (), "seconds"),
    *PROCESS_DEFINITIONS,
)
DEFINITIONS: Final[Mapping[str, Definition]] = {definition.name: definition for definition in _ALL}


def collect(figures: Figures) -> Iterator[Metric]:
    """Return a family with samples for each metric that has any."""
    document = figures.document
    common = common_samples(
        document.process,
        version=document.version,
        cpu_seconds=figures.cpu_seconds,
        started=document.started,
        live=figures.live,
        ready=figures.ready,
    )
    model: dict[str, Samples] = {"model": [((document.model.name, document.model.version), 1)]}
    return families(_ALL, _counters(figures) | _gauges(figures) | common | model, _histograms(figures))


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
        "lost_messages": [] if figures.document.queue.lost is None else [((queue,), figures.document.queue.lost)],
        "notifications_dropped": [((sink,), count) for sink, count in figures.notifications_dropped.items()],
    }


def _gauges(figures: Figures) -> dict[str, Samples]:
    document, snapshot = figures.document, figures.snapshot
    model = document.model
    queue, process, name = document.queue, document.process, document.queue.name
    drain_s = queue.drain_s
    if drain_s is None and queue.depth:
        drain_s = float("inf")
    single: dict[str, float | None] = {
        "pushes_unconfirmed": snapshot.unconfirmed,
        "push_oldest_seconds": round(snapshot.oldest_push_s, 3),
        "flow_paused": snapshot.paused,
        "stuck": document.progress.stuck,
        "idle_seconds": document.progress.idle_s,
        "cpu_limit_cores": process.cpu_limit,
        "memory_limit_bytes": process.memory_limit_bytes,
        "state_disk_free_bytes": process.disk_free_bytes,
        "state_disk_free_ratio": process.disk_free,
        "clock_skew_seconds": process.clock_skew_s,
    }
    of_queue: dict[str, float | None] = {
        "window_messages": snapshot.in_progress,
        "window_limit": snapshot.window,
        "queue_consumers": queue.consumers,
        "queue_oldest_message_age_seconds": queue.oldest_s,
        "queue_drain_seconds": drain_s,
        "lag_messages": queue.lag,
        "lag_seconds": queue.lag_s,
        "offset_gap": queue.gap,
    }
    states = {"ready": queue.depth, "unacked": queue.unacked}
    sides = {"broker": document.connections.broker.up, "phoenix": document.connections.phoenix.up}
    samples: dict[str, Samples] = {
        "queue_messages": [((name, state), count) for state, count in states.items() if count is not None],
        "batch_size_limit": [] if model.batch_size is None else [((model.name,), model.batch_size)],
        "dead_letters": [] if document.dlq.depth is None else [((document.dlq.name,), document.dlq.depth)],
        "connection_up": [((side,), up) for side, up in sides.items() if up is not None],
        "circuit_state": [((state,), state == snapshot.circuit) for state in _CIRCUITS]
        if snapshot.circuit != "none"
        else [],
    }
    samples |= {metric: [((), value)] for metric, value in single.items() if value is not None}
    return samples | {metric: [((name,), value)] for metric, value in of_queue.items() if value is not None}


def _histograms(figures: Figures) -> dict[str, Histograms]:
    document, snapshot, details = figures.document, figures.snapshot, figures.details
    queue, model = document.queue.name, document.model
    event = replace(times_of(snapshot.latency), exemplars=_exemplars(details))
    return {
        "inference_duration_seconds": [((model.name, model.version), times_of(snapshot.processing))],
        "event_duration_seconds": [((queue,), event)],
        "event_age_seconds": [((queue,), times_of(Latencies.decode(details.age)))],
        "publish_confirm_seconds": [((), times_of(Latencies.decode(details.confirm)))],
        "batch_size": [((model.name,), _batch_sizes(details.batch_sizes))] if details.batch_sizes else [],
    }


def _exemplars(details: Details) -> dict[int, PrometheusExemplar]:
    from prometheus_client.core import Exemplar  # noqa: PLC0415

    return {
        bucket: Exemplar({"trace_id": found.trace_id}, found.value_s, found.at)
        for bucket, found in details.exemplars.items()
    }


def _batch_sizes(sizes: Mapping[int, int]) -> Buckets:
    below = [sum(count for size, count in sizes.items() if size <= edge) for edge in SIZES]
    return Buckets(SIZES, below, sum(sizes.values()), float(sum(size * count for size, count in sizes.items())))
