"""A consumer that runs, by its stats document."""

from __future__ import annotations

import socket
from dataclasses import replace

import msgspec
import pytest

from infertool.app.doctor.consumer_checks import ConsumerChecks
from infertool.app.doctor.result import Finding, Status
from infertool.app.doctor.runner import Runner
from infertool.telemetry.stats_document import (
    AlertStats,
    ConnectionsStats,
    ConnectionStats,
    DeadLetterStats,
    ErrorStats,
    ModelStats,
    ProgressStats,
    QueueStats,
    RateStats,
    StatsDocument,
    WindowStats,
)
from infertool.text.input import parse_stats_url
from tests.support.phoenix_fake import raw_server, read_request

WELL = StatsDocument(
    time=2000.0, started=1000.0, uptime_s=1000.0, version="0.1.0", consumer="host:1", queue=QueueStats(name="q"),
    dlq=DeadLetterStats(name="d"), model=ModelStats(name="m"), rate=RateStats(settled=120.0),
    errors=ErrorStats(ratio_5m=0.001), window=WindowStats(in_progress=12, limit=200),
)  # fmt: skip
ALERT = AlertStats(rule="Backlog", state="firing", severity="page", summary="1200 messages wait")
DOWN = ConnectionsStats(broker=ConnectionStats(up=False))


def found(body: bytes, path: str = "") -> tuple[Finding, bytes | None]:
    def answer(connection: socket.socket) -> None:
        assert read_request(connection).startswith(b"GET /stats HTTP/1.1")
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)

    with raw_server(answer) as port:
        checks = ConsumerChecks(parse_stats_url(f"http://127.0.0.1:{port}{path}"))
        (result,) = Runner(lambda _check: None).run(checks.checks())
    return result.finding, checks.document


@pytest.mark.parametrize(
    ("document", "status", "value"),
    [
        (WELL, Status.OK, "host:1 0.1.0, up 16.7 min; 120 events/s, 0.10% failed in 5 min; 12 of 200 in progress"),
        (replace(WELL, alerts=(ALERT,)), Status.WARN, "firing: Backlog (1200 messages wait)"),
        (replace(WELL, alerts=(replace(ALERT, state="pending"),)), Status.OK, "12 of 200 in progress"),
        (replace(WELL, progress=ProgressStats(idle_s=600, stuck=True)), Status.FAIL, "stuck for 10 min"),
        (replace(WELL, connections=DOWN), Status.FAIL, "without a connection to broker"),
    ],
)
def test_a_consumer_that_runs(document: StatsDocument, status: Status, value: str) -> None:
    finding, kept = found(msgspec.json.encode(document), "/stats" if status is Status.OK else "")
    assert (finding.status, value in finding.value, finding.number) == (status, True, 120.0), finding
    assert kept


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b"\xff"])
def test_what_is_no_consumer(body: bytes) -> None:
    finding, kept = found(body)
    assert (finding.status, "is no consumer of infertool" in finding.value, kept) == (Status.FAIL, True, None)
