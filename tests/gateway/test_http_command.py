"""`infertool gateway` end to end: the command, a broker, a consumer that replies, and curl."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import pytest

from infertool.cli.common import gateway as dev_gateway
from infertool.cli.common.gateway import GatewayProcess
from tests.support.embedded import EmbeddedBroker
from tests.support.ports import free_port
from tests.support.running import LONG, PATIENT_GATEWAY, Running, infertool

MODEL = """
import time

def predict(payload):
    if payload.get("fail"):
        raise ValueError("cannot")
    time.sleep(payload.get("sleep", 0))
    return {"got": payload}
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    running = EmbeddedBroker().start()
    yield running
    running.stop()


def ready(gateway: Running) -> dict[str, Any]:
    assert gateway.process.stdout is not None
    line = gateway.process.stdout.readline()
    assert line, gateway.log.read_text()
    found: dict[str, Any] = json.loads(line)
    return found


def curl(*arguments: str) -> tuple[str, str]:
    """Return the headers and the body that curl gets."""
    done = subprocess.run(["curl", "-si", "-m", "200", *arguments], capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition("\n\n")
    return head, body


@pytest.mark.long
def test_from_curl_to_the_model_and_back_over_a_restart(broker: EmbeddedBroker, tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text(MODEL)
    options = [
        "gateway", "--listen", "0", "--broker", broker.url, "--queue", "gw.requests",
        "--state-dir", str(tmp_path / "state"), "--cache", "100:1h", "-o", "json",
    ]  # fmt: skip
    gateway = Running(tmp_path / "gateway", *options, **PATIENT_GATEWAY)
    url = ready(gateway)["url"]
    # Accepted before any consumer is there.
    early = httpx.post(f"{url}/v1/infer", json={"n": 1}, headers={"prefer": "respond-async"}, timeout=LONG)
    assert early.status_code == 202, early.text
    consumer = Running(
        tmp_path / "consumer", "consume", "--broker", broker.url, "--queue", "gw.requests", "--dlq", "gw.dead",
        "--model", f"{model}:predict", "--reply", "--publish", "none", "-o", "json",
    )  # fmt: skip
    try:
        head, body = curl(f"{url}/v1/infer", "-d", '{"n": 2}', "-H", "content-type: application/json")
        assert "200 OK" in head.splitlines()[0]
        assert json.loads(body)["prediction"] == {"got": {"n": 2}}
        _, body = curl(f"{url}/v1/infer", "-d", '{"n": 2}', "-H", "content-type: application/json")
        assert json.loads(body)["cached"] is True
        assert httpx.get(f"{url}{early.headers['location']}", timeout=LONG).json()["prediction"] == {"got": {"n": 1}}

        failed = httpx.post(f"{url}/v1/infer", json={"fail": True}, timeout=LONG).json()
        assert (failed["status"], failed["error_type"], failed["stage"]) == (500, "ValueError", "infer")
        _, command = failed["replay"].split("infertool ")
        shown = infertool(*command.split(), "gw.dead", "--dry-run", "--broker", broker.url, "-o", "json")
        assert json.loads(shown.stdout)["matching"] == 1, (shown.stdout, shown.stderr)

        head, body = curl("-N", f"{url}/v1/infer", "--json", '{"n": 3}', "-H", "accept: text/event-stream")
        assert "event: result" in body

        slow = httpx.post(f"{url}/v1/infer", json={"sleep": 2}, headers={"prefer": "wait=0"}, timeout=LONG)
        gateway.process.send_signal(signal.SIGTERM)
        gateway.finish()
        gateway = Running(tmp_path / "gateway", *options, **PATIENT_GATEWAY)
        url = ready(gateway)["url"]
        answer = httpx.get(f"{url}{slow.headers['location']}/events", timeout=LONG)
        assert "event: result" in answer.text
        assert '"got":{"sleep":2}' in answer.text
    finally:
        consumer.terminate()
        consumer.finish()
        gateway.process.send_signal(signal.SIGTERM)
        gateway.finish()


def test_only_the_gateway_writes_to_its_output(broker: EmbeddedBroker, tmp_path: Path) -> None:
    """Whatever prints before the ready line, or to the descriptor: who waits for the line gets it."""
    noise = """
        import os, sys
        print()
        sys.addaudithook(lambda event, _: os.write(1, b"noise\\n") if event == "socket.bind" else None)
    """
    (tmp_path / "sitecustomize.py").write_text(dedent(noise))
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    gateway = GatewayProcess(broker.url, host="127.0.0.1", port=0, env=env)
    try:
        url = gateway.wait_ready()
        assert httpx.get(f"{url}/livez", timeout=LONG).status_code == 200
    finally:
        gateway.process.terminate()
        rest = gateway.process.stdout.read()
        gateway.stop()
    assert b"noise" not in rest


def test_a_port_that_is_taken_while_it_starts_is_left_to_the_other(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([True])
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(dev_gateway, "PORT", port)
        monkeypatch.setattr(dev_gateway, "_is_free", lambda _host, _port: next(looks, False))
        gateway = GatewayProcess(broker.url, host="127.0.0.1", port=None)
        try:
            url = gateway.wait_ready()
            assert not url.endswith(f":{port}")
            assert httpx.get(f"{url}/livez", timeout=LONG).status_code == 200
        finally:
            gateway.stop()


def test_a_name_server_that_hangs_does_not_hold_up_the_end(broker: EmbeddedBroker, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    hang = f"""
        import pathlib, socket, time
        found = socket.getaddrinfo

        def getaddrinfo(host, *arguments, **options):
            if host == "hooks.example.com":
                pathlib.Path({str(asked)!r}).touch()
                time.sleep(3600)
            return found(host, *arguments, **options)

        socket.getaddrinfo = getaddrinfo
    """
    (tmp_path / "sitecustomize.py").write_text(dedent(hang))
    env = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "INFERTOOL_GATEWAY__WEBHOOK_HOSTS": '["hooks.example.com"]',
        "INFERTOOL_GATEWAY__WEBHOOK_SECRET": "whsec_" + "A" * 32,
    }
    gateway = GatewayProcess(broker.url, host="127.0.0.1", port=0, env=env)
    try:
        url = gateway.wait_ready()
        headers = {"prefer": "respond-async", "infertool-webhook": "https://hooks.example.com/in"}
        answer = httpx.post(f"{url}/v1/infer", json=1, headers=headers, timeout=LONG)
        assert httpx.delete(f"{url}{answer.headers['location']}", timeout=LONG).json()["status"] == "cancelled"
        end = time.monotonic() + LONG
        while not asked.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        gateway.process.terminate()
        assert gateway.process.wait_end(LONG)
    finally:
        gateway.stop()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "0.0.0.0:0"], "gateway.keys_file"),
        (["--queue", "a", "--model", "b=c"], "--queue"),
        (["--queue", "a.*"], "a.*"),
        (["--listen", "nowhere"], "nowhere"),
        (["--cache", "many"], "--cache"),
    ],
)
def test_what_it_refuses_to_start_with(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = infertool("gateway", "--state-dir", str(tmp_path), *arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("settings", "arguments", "said"),
    [
        ('models = {fraud = "ai.fraud"}', ["--queue", "a"], "gateway.models"),
        ('peers = {b = "gateway-b:8080"}', [], "gateway.peers.b"),
        ('peers = {b = "https://gateway-b/?x"}', [], "gateway.peers.b"),
        ("peers = {b = 8080}", [], "gateway.peers.b"),
        ('peers = {B = "http://gateway-b:8080"}', [], "gateway.peers.B"),
        ('jwt_issuer = "https://login.example.com/"', [], "gateway.jwks_url"),
    ],
)
def test_settings_that_it_refuses_to_start_with(tmp_path: Path, settings: str, arguments: list[str], said: str) -> None:
    file = tmp_path / "infertool.toml"
    file.write_text(f"[gateway]\n{settings}\n")
    arguments = ["--config", str(file), "gateway", "--state-dir", str(tmp_path), "--listen", "127.0.0.1:0", *arguments]
    done = infertool(*arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


@pytest.mark.long
def test_the_log_tells_when_the_broker_comes_goes_and_is_back(tmp_path: Path) -> None:
    broker = EmbeddedBroker()
    broker.stomp_port = free_port()
    gateway = Running(
        tmp_path / "log", "gateway", "--listen", "127.0.0.1:0", "--broker", broker.url, "--state-dir", str(tmp_path),
        INFERTOOL_BROKER__RECONNECT_MAX_S="0.1",
    )  # fmt: skip
    try:
        gateway.wait_for("more warnings in ")
        away = [line for line in gateway.log.read_text().splitlines() if "the broker cannot be reached" in line]
        assert len(away) == 2, away
        broker.start()
        gateway.wait_for(f"info    broker connected: {broker.url}")
        broker.stop()
        gateway.wait_for(f"warning broker lost: {broker.url}: ")
        broker.start()
        gateway.wait_for(f"info    broker connected: {broker.url}", 2)
    finally:
        gateway.kill()
        broker.stop()
