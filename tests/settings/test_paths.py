"""Paths in settings stay valid when a model changes the working folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from infertool.settings import Settings
from infertool.settings.load import anchored


def test_relative_files_and_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    given = Settings()
    given = replace(
        given,
        broker=replace(given.broker, tls_ca_file="ca.pem"),
        phoenix=replace(given.phoenix, tls_ca_file="/etc/ca.pem"),
        model=replace(given.model, tls_key_file="~/key.pem"),
        consume=replace(given.consume, state_dir="state"),
    )
    found = anchored(given)
    os.chdir("/")
    assert found.broker.tls_ca_file == f"{tmp_path}/ca.pem"
    assert found.phoenix.tls_ca_file == "/etc/ca.pem"
    assert found.model.tls_key_file == f"{tmp_path}/home/key.pem"
    assert found.consume.state_dir == f"{tmp_path}/state"
    assert (found.broker.tls_key_file, found.model.spec) == ("", given.model.spec)


def test_settings_without_files_stay_as_they_are() -> None:
    assert anchored(Settings()) == Settings()
