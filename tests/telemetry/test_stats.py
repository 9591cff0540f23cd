from __future__ import annotations

import json
import logging

import pytest

from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.telemetry import json_logs, signals
from infertool.telemetry.latencies import Latencies
from infertool.telemetry.logs import LogObserver, TextFormatter
from infertool.telemetry.stats import Stats


def test_signals_are_counted() -> None:
    stats = Stats()
    told: list[signals.Signal] = [
        signals.Received(10, 3),
        signals.DuplicateDelivery("e"),
        signals.Retried("e", 1, 0.1, "x"),
        signals.Predicted([0.1, 0.2]),
        signals.Failed("e", "infer", "ValueError", "x", 3),
        signals.Pushed(8),
        signals.Confirmed(7),
        signals.Succeeded([0.1] * 6),
        signals.Deferred("e", 1.0, "x"),
        signals.CacheHit(4),
        signals.Circuit("m", "open", "x", 5.0),
        signals.Circuit("m", "half-open"),
        signals.DeadLettered([0.2]),
        signals.HandedBack(2),
        signals.Revoked(3),
        signals.Delayed(4),
        signals.Replied(5),
        signals.ReplyLost("e", "q", "x"),
        signals.Dropped("e", "expired", 0.1),
        signals.Dropped("e", "expired", 0.1),
        signals.Dropped("e", "caller_gone", 0.1),
        signals.TraceIgnored(),
        signals.SpansDropped(7),
        signals.Warned("w"),
        signals.Flow(paused=True),
        signals.ConnectionChanged("broker", ConnectionEvent(ConnectionState.CONNECTED, "a", 1)),
        signals.ConnectionChanged("broker", ConnectionEvent(ConnectionState.LOST, "a", 1)),
        signals.ConnectionChanged("broker", ConnectionEvent(ConnectionState.CONNECTED, "a", 2)),
    ]
    for signal in told:
        stats(signal)
    snapshot = stats.snapshot()
    assert snapshot.counts == {
        "received": 10, "succeeded": 6, "failed": 1, "dead_lettered": 1, "retried": 1, "redelivered": 3,
        "recognised": 1, "pushed": 8, "confirmed": 7, "reconnects": 1, "handed_back": 2, "revoked": 3,
        "delayed": 4, "held": 1,
        "cache_hits": 4, "circuit_opened": 1, "replied": 5, "replies_lost": 1, "expired": 2, "caller_gone": 1,
        "traces_ignored": 1, "spans_dropped": 7,
    }  # fmt: skip
    assert snapshot.paused
    assert snapshot.circuit == "half-open"
    assert snapshot.links == {"broker": "connected"}
    assert snapshot.latency_ms.max == pytest.approx(200, rel=0.01)
    assert snapshot.rate > 0


def test_the_summary_has_the_fixed_keys() -> None:
    keys = {
        "received", "succeeded", "failed", "dead_lettered", "retried", "redelivered", "pushed", "confirmed",
        "reconnects", "rate", "latency_ms", "processing_ms",
    }  # fmt: skip
    assert keys <= Stats().snapshot().summary().keys()


def test_percentiles_of_a_known_distribution() -> None:
    latencies = Latencies()
    latencies.add([n / 1000 for n in range(1, 1001)])
    percentiles = latencies.percentiles()
    assert percentiles.p50 == pytest.approx(500, rel=0.01)
    assert percentiles.p99 == pytest.approx(990, rel=0.01)
    assert percentiles.max == pytest.approx(1000, rel=0.01)


def test_out_of_range_times_do_not_break_a_histogram() -> None:
    latencies = Latencies()
    latencies.add([-1.0, 0.0, 1e9])
    assert latencies.percentiles().max == pytest.approx(3_600_000, rel=0.01)


def test_log_lines_of_the_signals(caplog: pytest.LogCaptureFixture) -> None:
    observe = LogObserver()
    with caplog.at_level(logging.DEBUG, logger="infertool"):
        observe(
            signals.ConnectionChanged(
                "phoenix", ConnectionEvent(ConnectionState.LOST, "ws://h:1/s", 1, "closed with 1012", 0.5)
            )
        )
        observe(signals.Failed("e-1", "infer", "ValueError", "bad", 3))
    assert [record.getMessage() for record in caplog.records] == [
        "phoenix lost: ws://h:1/s: closed with 1012, next try in 0.5 s",
        "e-1 failed at infer after 3 attempts: ValueError: bad",
    ]
    document = json.loads(json_logs.Formatter().format(caplog.records[1]))
    assert document.items() >= {"level": "warning", "event_id": "e-1", "stage": "infer"}.items()
    assert (
        TextFormatter()
        .format(caplog.records[1])
        .endswith("warning e-1 failed at infer after 3 attempts: ValueError: bad")
    )
