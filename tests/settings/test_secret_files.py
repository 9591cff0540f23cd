"""Secrets that stand in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.settings.test_load import empty_folder, refusal, settings

__all__ = ["empty_folder"]

S = "s3cret"


@pytest.fixture(autouse=True)
def secret_file(empty_folder) -> Path:
    file = empty_folder / "pass.txt"
    file.write_text(f"{S}\nsecond line\n")
    return file


@pytest.mark.parametrize("content", [S, f"{S}\n", f"{S}\r\nx", f"\ufeff{S}\n"])
def test_the_first_line_is_the_secret(secret_file, content):
    secret_file.write_text(content, newline="")
    loaded = settings("[broker]\npassword_file = 'pass.txt'\n[phoenix]\ntoken_file = 'pass.txt'")
    assert loaded.settings.broker.password.reveal() == S
    assert loaded.settings.phoenix.token.reveal() == S
    assert loaded.origins["broker.password"] == "pass.txt (broker.password_file of my.toml:2)"


def test_spaces_belong_to_the_secret(secret_file):
    secret_file.write_text("  with spaces \n")
    assert settings("broker.password_file = 'pass.txt'").settings.broker.password.reveal() == "  with spaces "


def test_the_home_folder_is_expanded(monkeypatch, secret_file):
    monkeypatch.setenv("HOME", str(secret_file.parent))
    assert settings("broker.password_file = '~/pass.txt'").settings.broker.password.reveal() == S


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "its first line is empty"), (b"\nx", "its first line is empty"), (b"\xff\n", "not UTF-8")],
)
def test_files_without_a_secret(secret_file, content, reason):
    secret_file.write_bytes(content)
    assert str(refusal("broker.password_file = 'pass.txt'")) == (
        f"broker.password_file (my.toml:1): pass.txt cannot be used: {reason}; its first line must be the secret"
    )


@pytest.mark.parametrize(("path", "reason"), [("missing", "No such file"), (".", "Is a directory")])
def test_files_that_cannot_be_read(path, reason):
    assert f"{path} cannot be used: {reason}" in str(refusal(f"phoenix.token_file = '{path}'"))


def test_both_in_one_layer_is_an_error():
    error = refusal("[broker]\npassword = 'x'\npassword_file = 'pass.txt'")
    assert "broker.password (my.toml:2) and broker.password_file (my.toml:3) are both given; keep one" in str(error)
    environ = {"INFERTOOL_BROKER__PASSWORD": "x", "INFERTOOL_BROKER__PASSWORD_FILE": "pass.txt"}
    assert "are both given" in str(refusal(environ=environ))


def test_a_later_file_displaces_an_earlier_secret():
    given = {"INFERTOOL_BROKER__PASSWORD_FILE": "pass.txt", "ACTIVEMQ_PASSWORD": "other"}
    loaded = settings("broker.password = 'earlier'", environ=given)
    assert loaded.settings.broker.password.reveal() == S


def test_a_later_secret_displaces_an_earlier_file():
    loaded = settings("broker.password_file = 'missing'", environ={"ACTIVEMQ_PASSWORD": "later"})
    assert loaded.settings.broker.password.reveal() == "later"
    assert loaded.settings.broker.password_file == ""
    assert loaded.origins["broker.password_file"] == "default"


def test_a_profile_displaces_what_the_file_says():
    toml = "broker.password = 'x'\n[profile.p.broker]\npassword_file = 'pass.txt'"
    assert settings(toml, profile="p").settings.broker.password.reveal() == S
