"""Faults of the machine: its clock, its disk, its folders, and who can read its secrets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from infertool.app.doctor import clock, paths_checks, settings_checks
from infertool.app.doctor.check import Check
from infertool.app.doctor.clock import Skew
from infertool.app.doctor.result import Finding, Status, ok
from infertool.settings import BrokerSettings, ConsumeSettings, Settings
from tests.support.certificates import DAY, authority

MIB = 1024 * 1024
LOAD = Check(name="settings.load", run=lambda: ok("well"))


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def found(checks: list[Check], name: str) -> Finding:
    return next(check for check in checks if check.name == name).run()


@pytest.mark.parametrize(
    ("free_bytes", "status", "value"),
    [
        (10 * MIB, Status.FAIL, "10 MiB free of 1e+03 MiB (1%)"),
        (500 * MIB, Status.WARN, "500 MiB free of 1e+03 MiB (50%)"),
        (90_000 * MIB, Status.OK, "87.9 GiB free"),
    ],
)
def test_a_disk_that_is_nearly_full(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_bytes: int, status: Status, value: str
) -> None:
    total = max(1000 * MIB, free_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(total, total - free_bytes, free_bytes))
    settings = Settings(consume=ConsumeSettings(state_dir=str(tmp_path / "not" / "there")))
    finding = found(paths_checks.checks(settings, {}, LOAD), "paths.disk")
    assert (finding.status, finding.number, finding.unit) == (status, free_bytes, "bytes")
    assert finding.value.startswith(value)
    assert ("consume.state_dir" in finding.hint) == (status is not Status.OK)


def test_the_state_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    there = tmp_path / "there"
    there.mkdir()
    for folder, status, value in (
        (there, Status.OK, str(there)),
        (tmp_path / "a" / "b", Status.OK, "made at the first use"),
        (file / "below", Status.FAIL, f"{file} is no folder"),
    ):
        settings = Settings(consume=ConsumeSettings(state_dir=str(folder)))
        finding = found(paths_checks.checks(settings, {}, LOAD), "paths.state")
        assert (finding.status, value in finding.value) == (status, True), finding
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]
    assert not list(there.iterdir())


@pytest.mark.parametrize(
    ("skews", "status", "value"),
    [
        ([], Status.SKIP, "no server tells its time"),
        ([Skew("the broker", 0.0002, 0.001)], Status.OK, "within 1 ms of the broker"),
        ([Skew("a", 0.4, 0.5), Skew("b", -3.0, 0.1)], Status.WARN, "within 500 ms of a; 3 s ahead of b"),
        ([Skew("a", 3600.0, 0.5), Skew("b", 0.0, 0.1)], Status.FAIL, "60 min behind a; within 100 ms of b"),
    ],
)
def test_the_clock_against_those_of_servers(skews: list[Skew], status: Status, value: str) -> None:
    finding = clock.judge(skews)
    assert (finding.status, finding.value) == (status, value)
    assert ("NTP" in finding.hint) == (status in {Status.WARN, Status.FAIL})


def test_a_secret_that_all_can_read(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    settings = Settings(broker=BrokerSettings(password_file=str(file)))
    for mode, status in ((0o644, Status.WARN), (0o640, Status.OK)):
        file.chmod(mode)
        finding = found(settings_checks.checks(settings, LOAD), "settings.secrets")
        assert finding.status is status
    file.chmod(0o644)
    assert "(0644)" in found(settings_checks.checks(settings, LOAD), "settings.secrets").value
    assert found(settings_checks.checks(Settings(), LOAD), "settings.secrets").status is Status.SKIP


def test_a_certificate_of_our_own(tmp_path: Path) -> None:
    issuer = authority(tmp_path)
    file = tmp_path / "client.pem"
    for ends_in, status in ((-DAY, Status.FAIL), (2 * DAY, Status.WARN), (90 * DAY, Status.OK)):
        issued = issuer.issue("issued", ends_in=ends_in).read_text()
        # The key may stand first.
        key, certificate = issued[issued.index("-----BEGIN PRIVATE") :], issued[: issued.index("-----BEGIN PRIVATE")]
        file.write_text(key + certificate)
        finding = found(settings_checks.checks(_with_certificate(file), LOAD), "settings.certificates")
        assert finding.status is status, finding
        assert finding.number is not None
        assert abs(finding.number - ends_in.total_seconds()) < 3600
    file.write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----")
    for path in (file, tmp_path / "not there"):
        finding = found(settings_checks.checks(_with_certificate(path), LOAD), "settings.certificates")
        assert (finding.status, str(path) in finding.value) == (Status.FAIL, True)
    assert found(settings_checks.checks(Settings(), LOAD), "settings.certificates").status is Status.SKIP


def _with_certificate(file: Path) -> Settings:
    return Settings(broker=BrokerSettings(tls_cert_file=str(file)))
