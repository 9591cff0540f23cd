"""Checks of the gateway's API keys and of the key set of its tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infertool.app.doctor import gateway_checks
from infertool.app.doctor.check import Check
from infertool.app.doctor.result import Finding, ok
from infertool.gateway.key_file import KeyFile
from infertool.gateway.key_set import is_safe
from infertool.settings import GatewaySettings, Settings
from tests.gateway import jwks
from tests.gateway.test_keys import made

LOAD = Check(name="settings.load", run=lambda: ok(""))


def found(name: str, **gateway: Any) -> Finding:
    checks = gateway_checks.checks(Settings(gateway=GatewaySettings(**gateway)), LOAD)
    return next(check for check in checks if check.name == name).run()


@pytest.mark.parametrize(
    ("ends", "status", "value"),
    [
        ({"a": [None]}, "ok", "1 active key of 1"),
        ({"a": [1, 90]}, "ok", "2 active keys of 2"),  # after a rotation
        ({"a": [1], "b": [3, 5], "c": [None]}, "warn", "a, b: the first ends in 24 h"),
        ({"a": [-1]}, "warn", "0 active keys of 1"),
        ({}, "warn", "0 active keys of 0"),
    ],
)
def test_keys(tmp_path: Path, ends: dict[str, list[int | None]], status: str, value: str) -> None:
    now = datetime.now(UTC)
    path = tmp_path / "keys.json"
    with KeyFile(path).changing() as keys:
        for name, days in ends.items():
            for left in days:
                keys.append(made(name, expires=None if left is None else now + timedelta(days=left))[0])
    finding = found("gateway.keys", keys_file=str(path))
    assert finding.status == status
    assert value in finding.value
    path.chmod(0o620)
    assert found("gateway.keys", keys_file=str(path)).status == "warn"


def test_keys_that_cannot_be_read(tmp_path: Path) -> None:
    assert found("gateway.keys").status == "skip"
    finding = found("gateway.keys", keys_file=str(tmp_path / "none.json"))
    assert (finding.status, "keys add" in finding.hint) == ("fail", True)
    (tmp_path / "keys.json").write_text("{")
    assert found("gateway.keys", keys_file=str(tmp_path / "keys.json")).status == "fail"


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://login.example.com/keys", True),
        ("http://127.0.0.1:80", True),
        ("http://[::1]/", True),
        ("http://localhost", True),
        ("http://login.example.com/keys", False),
        ("http://10.0.0.1/keys", False),
        ("http://localhost.example.com", False),
    ],
)
def test_a_key_set_that_others_can_exchange(url: str, safe: bool) -> None:
    assert is_safe(url) == safe


def test_the_key_set() -> None:
    assert found("gateway.key_set").status == "skip"
    with jwks.KeySetServer(jwks.key("P-256", "a")) as server:
        given = {"jwks_url": server.url + "?token=hidden", "jwt_issuer": "i", "jwt_audience": "a"}
        assert found("gateway.key_set", **given).status == "ok"
        assert found("gateway.key_set", **given | {"jwt_audience": ""}).status == "fail"
        server.mode = "garbage"
        finding = found("gateway.key_set", **given)
        assert finding.status == "fail"
    gone = found("gateway.key_set", **given)
    for each in (finding, gone):
        assert "cannot be read" in each.value
        assert "hidden" not in each.value
