"""The Grafana dashboard: a few rows, from what a person looks at first to what explains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

_WIDTH: Final = 24
_ROW_HEIGHT: Final = 1
_DATA_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_QUEUE: Final = 'queue=~"$queue"'
_RATE: Final = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and the legend of its series."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of `width` of 24 columns. `unit` is Grafana's. `limits` colour a single value: (from, colour)."""

    title: str
    unit: str
    queries: Sequence[Query]
    meaning: str
    width: int = 8
    kind: Literal["timeseries", "stat"] = "timeseries"
    limits: Sequence[tuple[float | None, str]] = ()
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one title."""

    title: str
    height: int
    panels: Sequence[Panel]


def _stat(
    title: str, unit: str, expression: str, meaning: str, limits: Sequence[tuple[float | None, str]] = ()
) -> Panel:
    return Panel(title, unit, (Query(expression, ""),), meaning, width=4, kind="stat", limits=limits)


def _quantiles(metric: str, labels: str = "") -> tuple[Query, ...]:
    buckets = f"sum by (le) (rate({metric}_bucket{labels}{_RATE}))"
    return tuple(Query(f"histogram_quantile({q / 100}, {buckets})", f"p{q}") for q in (50, 90, 99))


_GREEN_ABOVE_ZERO: Final = ((None, "red"), (1, "green"))
_SETTLED: Final = f"sum(rate(infertool_messages_settled_total{{{_QUEUE}}}{_RATE}))"

ROWS: Final = (
    Row("Is it well?", 4, (
        _stat("Ready", "none", "sum(infertool_ready)", "Consumers that can take and confirm events.",
              _GREEN_ABOVE_ZERO),
        _stat("Waiting", "short", f'max(infertool_queue_messages{{{_QUEUE},state="ready"}})',
              "Messages that no consumer holds."),
        _stat("Oldest message", "s", f"max(infertool_queue_oldest_message_age_seconds{{{_QUEUE}}})",
              "How long the first message has waited.", ((None, "green"), (60, "orange"), (300, "red"))),
        _stat("Empty in", "s", f"max(infertool_queue_drain_seconds{{{_QUEUE}}})",
              "Time until the queue is empty at the present rate.",
              ((None, "green"), (300, "orange"), (1800, "red"))),
        _stat("Events a second", "reqps", _SETTLED, "Events settled a second."),
        _stat("Failing", "percentunit",
              f"sum(rate(infertool_failures_total{_RATE})) / {_SETTLED} or vector(0)",
              "Share of settled events that failed.", ((None, "green"), (0.01, "orange"), (0.05, "red"))),
    )),
    Row("Flow", 8, (
        Panel("Events", "reqps", (
            Query(f"sum(rate(infertool_messages_received_total{{{_QUEUE}}}{_RATE}))", "received"),
            Query(f"sum by (outcome) (rate(infertool_messages_settled_total{{{_QUEUE}}}{_RATE}))", "{{outcome}}"),
        ), "What comes in, and how it ends. Received above the sum of the rest: the backlog moves into the window."),
        Panel("Queue", "short", (
            Query(f"max by (state) (infertool_queue_messages{{{_QUEUE}}})", "{{state}}"),
            Query("max by (queue) (infertool_dead_letters)", "dead letters in {{queue}}"),
        ), "Messages that wait, that consumers hold, and dead letters."),
        Panel("Window", "short", (
            Query(f"sum(infertool_window_messages{{{_QUEUE}}})", "held"),
            Query(f"sum(infertool_window_limit{{{_QUEUE}}})", "limit"),
        ), "Held at the limit: the model or Phoenix is slower than the producers."),
    )),
    Row("Time", 8, (
        Panel("Delivery to settlement", "s", _quantiles("infertool_event_duration_seconds", f"{{{_QUEUE}}}"),
              "All that the consumer adds: waiting, model, publication."),
        Panel("Model", "s", _quantiles("infertool_inference_duration_seconds"), "Calls of the model."),
        Panel("Confirmation", "s", _quantiles("infertool_publish_confirm_seconds"),
              "From a publication to its confirmation: Phoenix, or the reply queue."),
    )),
    Row("Trouble", 8, (
        Panel("Failures", "reqps", (
            Query(f"sum by (stage, error_type) (rate(infertool_failures_total{_RATE}))", "{{stage}}: {{error_type}}"),
        ), "Events that failed for good, by stage and error type.", stacked=True),
        Panel("Attempts again", "reqps", (
            Query(f"sum(rate(infertool_retries_total{_RATE}))", "retried"),
            Query(f"sum(rate(infertool_deferred_total{_RATE}))", "model unavailable"),
            Query(f"sum(rate(infertool_duplicates_total{_RATE}))", "redelivered"),
        ), "Attempts that failed and are repeated; events that came again."),
        Panel("Connections", "short", (
            Query("min by (side) (infertool_connection_up)", "{{side}} up"),
            Query(f"sum by (side) (increase(infertool_reconnects_total{_RATE}))", "{{side}} reconnects"),
            Query("max(infertool_flow_paused)", "paused by Phoenix"),
            Query("max(infertool_push_oldest_seconds)", "oldest push, s"),
        ), "1 is up. The oldest push grows where Phoenix takes pushes and confirms none."),
    )),
    Row("Resources", 8, (
        Panel("CPU", "none", (
            Query(f"sum by (instance) (rate(process_cpu_seconds_total{_RATE}))", "{{instance}} cores"),
            Query("max(infertool_cpu_limit_cores)", "limit"),
        ), "Cores in use, worker processes included."),
        Panel("Memory", "bytes", (
            Query("sum by (instance) (process_resident_memory_bytes)", "{{instance}}"),
        ), "Resident memory of all processes."),
        Panel("Files and disk", "percentunit", (
            Query("max by (instance) (process_open_fds / process_max_fds)", "{{instance}} open files"),
            Query("1 - min by (instance) (infertool_state_disk_free_ratio)", "{{instance}} disk used"),
        ), "Shares of the limits: 1 is full."),
    )),
)  # fmt: skip


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in ROWS:
        panels.append({"type": "row", "title": row.title, "collapsed": False, "gridPos": _place(0, y, _WIDTH, 1)})
        y += _ROW_HEIGHT
        x = 0
        for panel in row.panels:
            panels.append(_panel(panel) | {"gridPos": _place(x, y, panel.width, row.height)})
            x += panel.width
        y += row.height
    return {
        "title": "infertool",
        "uid": "infertool-consumer",
        "tags": ["infertool"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_data_source_variable(), _queue_variable()]},
        "panels": [{"id": number} | panel for number, panel in enumerate(panels, 1)],
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "custom": {}}
    options: dict[str, Any] = {"tooltip": {"mode": "multi", "sort": "desc"}, "legend": {"displayMode": "list"}}
    if panel.kind == "stat":
        steps = [{"value": value, "color": colour} for value, colour in panel.limits or ((None, "blue"),)]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}}
        options = {"colorMode": "value", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}
    elif panel.stacked:
        defaults["custom"] = {"stacking": {"mode": "normal"}, "fillOpacity": 20}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": _DATA_SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + number), "expr": query.expression, "legendFormat": query.legend,
             "datasource": _DATA_SOURCE}
            for number, query in enumerate(panel.queries)
        ],
    }  # fmt: skip


def _data_source_variable() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}


def _queue_variable() -> dict[str, Any]:
    return {
        "name": "queue",
        "type": "query",
        "label": "Queue",
        "datasource": _DATA_SOURCE,
        "query": "label_values(infertool_window_limit, queue)",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
