"""Samples of the metrics: hostile names, values that are not known, sums over processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, exposition
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from infertool.telemetry import signals
from infertool.telemetry.metric_families import _label
from infertool.telemetry.metrics import DEFINITIONS, Figures, collect
from infertool.telemetry.stats import Report, Stats
from infertool.telemetry.stats_builder import Identity, StatsBuilder
from tests.support.prometheus import promtool

HOSTILE = ['q"uote', "back\\slash", "line\nbreak", "x" * 10_000, "\udcff surrogate", "ä", "", "{}", 'a="b"']


class Source:
    """Consumer processes, one for each list of signals."""

    stopping = False

    def __init__(self, *processes: list[signals.Signal]) -> None:
        self._reports: list[Report] = []
        for process in processes:
            stats = Stats(detailed=True)
            for signal in process:
                stats(signal)
            self._reports.append(stats.report())

    def reports(self) -> tuple[list[Report], list[Report]]:
        return self._reports, self._reports


def figures(source: Source, folder: Path, name: str = "q") -> Figures:
    builder = StatsBuilder(source, Identity("c", "0", name, name, name), folder, 300.0)
    now = builder.now()
    return Figures(builder.document, now.snapshot, now.details, 1.5, caches=True, live=True, ready=False)


class Collected:
    def __init__(self, shown: Figures) -> None:
        self._shown = shown

    def collect(self) -> Iterator[Metric]:
        return collect(self._shown)


def texts(shown: Figures) -> tuple[str, str]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected(shown))
    return exposition.generate_latest(registry).decode(), openmetrics.generate_latest(registry).decode()


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read_text(text)
        for sample in family.samples
    }


@pytest.mark.prometheus
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_labels(name: str, tmp_path: Path) -> None:
    failure = signals.Failed("e", "infer", name, "text", 1)
    text, open_text = texts(figures(Source([failure]), tmp_path, name))
    shown = _label(name)
    assert len(shown) <= 200
    assert shown.startswith(name[:100].encode("utf-8", "replace").decode())
    [(_, labels)] = [key for key in values(text) if key[0] == "infertool_window_limit"]
    assert dict(labels) == {"queue": shown}
    failures = {labels["error_type"] for each in read_openmetrics(open_text) for labels in
                (sample.labels for sample in each.samples) if each.name == "infertool_failures"}  # fmt: skip
    assert failures == {_label(name[:100])}
    checked = promtool("check", "metrics", text=text)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_what_is_not_known_has_no_sample(tmp_path: Path) -> None:
    names = {name for name, _ in values(texts(figures(Source([]), tmp_path))[0])}
    for name in (
        "queue_messages",
        "queue_consumers",
        "lag_messages",
        "lag_seconds",
        "lost_messages_total",
        "offset_gap",
        "dead_letters",
        "connection_up",
        "circuit_state",
        "clock_skew_seconds",
    ):
        assert f"infertool_{name}" not in names
    assert {"infertool_messages_settled_total", "infertool_ready", "process_open_fds"} <= names


def test_a_queue_that_does_not_drain_takes_for_ever(tmp_path: Path) -> None:
    waiting = signals.InProgress(1, 10, 5)
    found = values(texts(figures(Source([waiting]), tmp_path))[0])
    assert found["infertool_queue_drain_seconds", (("queue", "q"),)] == float("inf")
    empty = values(texts(figures(Source([replace(waiting, waiting=0)]), tmp_path))[0])
    assert empty["infertool_queue_drain_seconds", (("queue", "q"),)] == 0


def test_the_lag_is_that_of_the_group_and_what_was_lost_adds_up(tmp_path: Path) -> None:
    one, other = signals.LagState(70, 12.5, 3, 900), signals.LagState(71, None, 4, 20)
    source = Source([one], [other])
    assert {
        name: value for (name, _), value in values(texts(figures(source, tmp_path))[0]).items()
        if "lag_" in name or "lost_" in name or "offset" in name
    } == {
        "infertool_lag_messages": 71, "infertool_lag_seconds": 12.5,
        "infertool_lost_messages_total": 7, "infertool_offset_gap": 900,
    }  # fmt: skip
    settled = figures(Source([signals.LagState(0, None, 0, 0)]), tmp_path).document.queue
    assert (settled.lag, settled.lag_s, settled.lost, settled.gap) == (0, 0.0, 0, 0)


def test_processes_are_summed(tmp_path: Path) -> None:
    times = [0.0005, 0.003, 0.7, 100.0]
    one: list[signals.Signal] = [
        signals.Received(5, 1),
        signals.Predicted(times),
        signals.Succeeded(times),
        signals.CacheHit(1),
        signals.Batch(3),
        signals.Circuit("h", "open"),
        signals.Traced("0" * 31 + "1", 0.7),
    ]
    text, open_text = texts(figures(Source(one, one), tmp_path))
    found = values(text)
    queue = ("queue", "q")
    assert found["infertool_messages_received_total", (queue, ("redelivered", "false"))] == 8
    assert found["infertool_messages_settled_total", (("outcome", "succeeded"), queue)] == 8
    assert found["infertool_event_duration_seconds_count", (queue,)] == 8
    assert found["infertool_event_duration_seconds_sum", (queue,)] == pytest.approx(2 * sum(times), rel=0.001)
    buckets = {edge: found["infertool_event_duration_seconds_bucket", (("le", edge), queue)] for edge in
               ("0.001", "0.002", "0.005", "0.5", "1.0", "60.0", "+Inf")}  # fmt: skip
    assert list(buckets.values()) == [2, 2, 4, 4, 6, 6, 8]
    assert found["infertool_batch_size_bucket", (("le", "5.0"), ("model", "q"))] == 2
    assert found["infertool_batch_size_sum", (("model", "q"),)] == 6
    assert found["infertool_cache_requests_total", (("result", "miss"),)] == 6
    assert found["infertool_circuit_state", (("state", "open"),)] == 1
    assert '# {trace_id="00000000000000000000000000000001"} 0.7' in open_text


def test_every_family_is_defined_and_said_once(tmp_path: Path) -> None:
    names = [family.name for family in collect(figures(Source([]), tmp_path))]
    assert len(set(names)) == len(names)
    assert set(names) <= {f"{each.prefix}{each.name}" for each in DEFINITIONS.values()}


def test_before_the_first_report_there_are_metrics(tmp_path: Path) -> None:
    found = values(texts(figures(Source(), tmp_path))[0])
    assert found["infertool_event_age_seconds_count", (("queue", "q"),)] == 0
    assert found["infertool_publish_confirm_seconds_count", ()] == 0
