"""The gateway that `dev` and `demo` start beside their servers."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from infertool.app import extra
from infertool.cli.common import gateway
from infertool.cli.common.gateway import GatewayProcess
from infertool.errors import ServerError, UsageError
from tests.support.embedded import EmbeddedBroker
from tests.support.running import LONG, Running

MODEL = Path(__file__).parents[2] / "fixtures" / "models" / "echo.py"


def test_a_consumer_answers_what_the_gateway_of_dev_takes(tmp_path: Path) -> None:
    ports = ("--stomp-port", "0", "--no-hub", "--gateway-port", "0")
    dev = Running(tmp_path / "dev", "dev", *ports, "-o", "json")
    state = str(tmp_path / "state")
    consumer = None
    try:
        assert dev.process.stdout
        addresses = json.loads(dev.process.stdout.readline())
        options = ("--broker", addresses["stomp"], "--reply", "--model", f"{MODEL}:predict")
        consumer = Running(tmp_path / "consumer", "consume", *options, INFERTOOL_CONSUME__STATE_DIR=state)
        answer = httpx.post(
            f"{addresses['gateway']}/predict", json={"x": 1}, timeout=LONG, headers={"prefer": "wait=60"}
        )
        assert answer.status_code == 200, answer.text
        dev.terminate()
        assert dev.process.wait(LONG) == 0
    finally:
        for each in filter(None, (dev, consumer)):
            each.kill()


def test_what_killed_ones_left_is_removed(
    embedded_broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what a gateway has locked, what is new, or what is no folder of that name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old = time.time() - 10_000
    names = [
        "infertool-dev-gateway-left_1ab",
        "infertool-dev-gateway-new_12ab",
        "infertool-dev-gateway-locked12",
        "other",
    ]
    left, new, locked, other = folders = [tmp_path / name for name in names]
    for folder in folders:
        folder.mkdir()
        (folder / "gateway.lock").touch()
        (folder / "gateway.sqlite").touch()
        os.utime(folder, None if folder is new else (old, old))
    link = tmp_path / "infertool-dev-gateway-link_123"
    link.symlink_to(other)
    with (locked / "gateway.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = GatewayProcess(embedded_broker.url, host="127.0.0.1", port=0)
        made.wait_ready()
        made.stop()
    assert {each.name for each in tmp_path.iterdir()} == {new.name, locked.name, other.name, link.name}
    assert len(list(other.iterdir())) == 2
    assert not left.exists()


def test_a_port_that_is_taken(embedded_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        given = GatewayProcess(embedded_broker.url, host="127.0.0.1", port=port)
        with pytest.raises(ServerError, match="Address already in use"):
            given.wait_ready()
        given.stop()
        monkeypatch.setattr(gateway, "PORT", port)
        usual = GatewayProcess(embedded_broker.url, host="127.0.0.1", port=None)
        assert not usual.wait_ready().endswith(f":{port}")
        usual.stop()


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(extra, "_PACKAGES", ("starlette", "no_such_package"))
    assert not gateway.is_possible(quiet=False)
    assert "no_such_package: pip install 'infertool[gateway]'" in capsys.readouterr().err
    with pytest.raises(UsageError, match="serve-model needs no_such_package, which is not installed"):
        extra.check("serve-model")
