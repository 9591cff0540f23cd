"""Alert rules and sinks that cannot be used; nothing is sent to them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from infertool.app.doctor.check import Check
from infertool.app.doctor.result import Finding, Status, ok
from infertool.app.doctor.runner import Runner
from infertool.app.doctor.telemetry_checks import checks
from infertool.settings import Settings
from infertool.settings.tree import AlertSettings, TelemetrySettings
from tests.app.doctor.test_consumer import WELL
from tests.support.phoenix_fake import raw_server, read_request

LOAD = Check(name="settings.load", run=lambda: ok("well"))
STATUS = b'{"versionInfo": {"version": "0.25.0"}, "cluster": {}}'


def found(
    traces: Literal["off", "otlp"] = "off",
    environ: Mapping[str, str] | None = None,
    metrics: str = "",
    **alerting: Any,
) -> dict[str, Finding]:
    settings = Settings(alerting=AlertSettings(**alerting), telemetry=TelemetrySettings(traces=traces, metrics=metrics))
    results = Runner(lambda _check: None).run(checks(settings, dict(environ or {}), LOAD))
    return {result.name.partition(".")[2]: result.finding for result in results}


def answering(status: str, body: bytes, requests: list[bytes]) -> AbstractContextManager[int]:
    def answer(connection: socket.socket) -> None:
        requests.append(read_request(connection))
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)

    return raw_server(answer)


@pytest.mark.parametrize(
    ("status", "body", "expected", "value"),
    [
        ("200 OK", STATUS, Status.OK, "Alertmanager 0.25.0 in "),
        ("200 OK", b"<html>", Status.FAIL, "is no Alertmanager"),
        ("500 Oops", b"", Status.FAIL, "answered 500"),
        ("302 Found", b"", Status.FAIL, "answered 302"),
    ],
)
def test_an_alertmanager(status: str, body: bytes, expected: Status, value: str) -> None:
    requests: list[bytes] = []
    with answering(status, body, requests) as port:
        finding = found(alertmanager_url=f"http://me:Pass-word@127.0.0.1:{port}/am/")["alertmanager"]
    assert (finding.status, value in finding.value) == (expected, True), finding
    assert "Pass-word" not in finding.value
    (request,) = requests
    assert request.startswith(b"GET /am/api/v2/status HTTP/1.1")
    assert b"uthorization: Basic" in request


def test_sinks_that_are_not_there(tmp_path: Path) -> None:
    sinks = found(
        alertmanager_url="http://127.0.0.1:1", webhook_url="http://127.0.0.1:1/x", command=[str(tmp_path / "nothing")]
    )
    assert {name: finding.status for name, finding in sinks.items()} == {
        "rules": Status.OK, "metrics": Status.SKIP, "traces": Status.SKIP, "alertmanager": Status.FAIL,
        "webhook": Status.FAIL, "command": Status.FAIL,
    }  # fmt: skip
    assert "Connection refused" in sinks["alertmanager"].value
    assert "nothing listens there" in sinks["webhook"].value
    assert all(finding.hint for finding in sinks.values() if finding.status is Status.FAIL)


def test_a_webhook_gets_a_connection_and_no_bytes() -> None:
    received: list[bytes] = []
    ended = threading.Event()

    def take(connection: socket.socket) -> None:
        received.append(connection.recv(1))
        ended.set()

    with raw_server(take) as port:
        finding = found(webhook_url=f"http://127.0.0.1:{port}/hook", command=["true"])["webhook"]
        assert ended.wait(60)
    assert (finding.status, received) == (Status.OK, [b""])


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_the_endpoint_of_traces(name: str) -> None:
    with raw_server(lambda _connection: None) as port:
        url = f"http://me:Pass-word@127.0.0.1:{port}/v1/traces"
        assert found(traces="otlp", environ={name: url})["traces"].status is Status.OK
    gone = found(traces="otlp", environ={name: url})["traces"]
    assert (gone.status, f"{name}: http://me:********@127.0.0.1:{port}" in gone.hint) == (Status.FAIL, True)
    bare = found(traces="otlp", environ={name: "http://::1:4318/v1/traces"})["traces"]
    assert bare.status is Status.FAIL
    assert bare.hint.startswith("write http://[::1]:4318 in OTEL_EXPORTER_OTLP_ENDPOINT")
    wrong = found(traces="otlp", environ={name: "http://[1"})["traces"]
    assert (wrong.status, "is no address" in wrong.value) == (Status.FAIL, True)


def test_the_address_of_metrics() -> None:
    requests: list[bytes] = []
    with answering("404 Not Found", b"", requests) as port:
        taken = found(metrics=f"127.0.0.1:{port}")["metrics"]
        assert (taken.status, taken.value) == (Status.FAIL, f"another program listens at 127.0.0.1:{port}")
    for text, status in (
        ("0", Status.OK),
        ("203.0.113.1:80", Status.FAIL),
        ("99999999", Status.FAIL),
        ("", Status.SKIP),
    ):
        assert found(metrics=text)["metrics"].status is status, text


def test_the_address_of_metrics_of_a_consumer_that_runs() -> None:
    with answering("200 OK", msgspec.json.encode(WELL), []) as port:
        mine = found(metrics=str(port))["metrics"]
    assert (mine.status, mine.value) == (Status.OK, f"127.0.0.1:{port} is that of host:1, which runs")


def test_rules_that_cannot_be_used_or_are_told_to_nobody() -> None:
    rule = {"name": "Mine", "when": "queue.depht > 1", "severity": "page"}
    finding = found(rules=[rule])["rules"]
    assert (finding.status, "depht" in finding.value) == (Status.FAIL, True)
    finding = found(rules=[{**rule, "when": "queue.depth > 1", "sinks": ["webhook"]}])["rules"]
    assert (finding.status, "Mine names webhook, which is not configured" in finding.value) == (Status.FAIL, True)
    assert found(enabled=False)["rules"].status is Status.SKIP
    assert (found()["rules"].status, found(metrics="0")["rules"].status) == (Status.SKIP, Status.OK)
