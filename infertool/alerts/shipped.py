"""The rules that apply without any table `[[alerts]]`. docs/alerts.md says of each what it means and what to do."""

from __future__ import annotations

from typing import Any, Final

SHIPPED: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "ConnectionDown",
        "when": "connections.broker.up == false"
        " || (connections.phoenix.up != null && connections.phoenix.up == false)",
        "for": "1m",
        "severity": "page",
        "summary": "The connection to the broker or to Phoenix is down.",
    },
    {
        "name": "NoProgress",
        "when": "progress.stuck",
        "severity": "page",
        "summary": "Messages wait, connections are up, and nothing moves.",
        "inhibited_by": ["ConnectionDown"],
    },
    {
        "name": "Backlog",
        "when": "queue.depth > 1000",
        "clear": "queue.depth < 600",
        "for": "2m",
        "severity": "page",
        "summary": "{value} messages wait (threshold {threshold}).",
        "inhibited_by": ["ConnectionDown"],
    },
    {
        "name": "QueueAge",
        "when": "queue.oldest_s > 300.0",
        "clear": "queue.oldest_s < 120.0",
        "for": "1m",
        "severity": "page",
        "summary": "The oldest message has waited for {value} s (threshold {threshold} s).",
    },
    {
        "name": "LostMessages",
        "when": "queue.lost > 0",
        "severity": "page",
        "summary": "{value} messages were deleted before they were settled.",
    },
    {
        "name": "DrainTime",
        "when": "queue.drain_s > 900.0",
        "clear": "queue.drain_s < 600.0",
        "for": "5m",
        "summary": "At the present rate the queue is empty in {value} s (threshold {threshold} s).",
    },
    {
        "name": "ResponseTime",
        "when": "latency.event.p99_ms > 5000.0 && latency.event.count >= 20",
        "clear": "latency.event.p99_ms < 3000.0",
        "for": "5m",
        "summary": "1 % of the events takes longer than {value} ms (threshold {threshold} ms).",
    },
    {
        "name": "ErrorBurn",
        "when": "(errors.ratio_5m > 0.144 && errors.ratio_1h > 0.144 && errors.events_1h >= 100)"
        " || (errors.ratio_30m > 0.06 && errors.ratio_6h > 0.06 && errors.events_6h >= 100)",
        "keep_firing_for": "2m",
        "severity": "page",
        "summary": "A share of {value} of the events fails (threshold {threshold}).",
    },
    {
        "name": "DeadLetters",
        "when": "dlq.rate > 0.1",
        "clear": "dlq.rate < 0.02",
        "for": "2m",
        "summary": "{value} dead letters a second (threshold {threshold}).",
    },
    {
        "name": "CircuitOpen",
        "when": 'model.circuit in ["open", "half-open"]',
        "for": "1m",
        "severity": "page",
        "summary": "The circuit of the model server is open: events wait.",
    },
    {
        "name": "Memory",
        "when": "double(process.memory_bytes) / double(process.memory_limit_bytes) > 0.9",
        "clear": "double(process.memory_bytes) / double(process.memory_limit_bytes) < 0.8",
        "for": "2m",
        "severity": "page",
        "summary": "A share of {value} of the memory limit is used (threshold {threshold}).",
    },
    {
        "name": "Cpu",
        "when": "process.cpu / process.cpu_limit > 0.95",
        "clear": "process.cpu / process.cpu_limit < 0.85",
        "for": "10m",
        "summary": "A share of {value} of the cores is in use (threshold {threshold}).",
    },
    {
        "name": "Disk",
        "when": "process.disk_free < 0.05 && process.disk_free_bytes < 5000000000",
        "clear": "process.disk_free > 0.08 || process.disk_free_bytes > 8000000000",
        "for": "1m",
        "severity": "page",
        "summary": "A share of {value} of the disk with the state folder is free (threshold {threshold}).",
    },
    {
        "name": "ClockSkew",
        "when": "process.clock_skew_s > 5.0",
        "clear": "process.clock_skew_s < 2.0",
        "for": "1m",
        "summary": "The clock is {value} s behind that of the producers (threshold {threshold} s).",
    },
)  # fmt: skip
