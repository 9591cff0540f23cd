"""Secrets in files."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from infertool.errors import SettingsError
from infertool.settings.secrets import FILES
from tests.settings.test_load import empty_folder, refusal, settings
from tests.support.secretfiles import secret_in

__all__ = ["empty_folder"]

S = "s3cret"


@pytest.fixture(autouse=True)
def secret_file(empty_folder: Path) -> Path:
    file = empty_folder / "pass.txt"
    file.write_text(f"{S}\nsecond line\n")
    return file


@pytest.mark.parametrize("content", [S, f"{S}\n", f"{S}\r\nx", f"\ufeff{S}\n"])
def test_the_first_line_is_the_secret(secret_file: Path, content: str) -> None:
    secret_file.write_text(content, newline="")
    loaded = settings("[broker]\npassword_file = 'pass.txt'\n[phoenix]\ntoken_file = 'pass.txt'")
    assert loaded.settings.broker.password.reveal() == S
    assert loaded.settings.phoenix.token.reveal() == S
    assert loaded.origins["broker.password"] == "pass.txt (broker.password_file of my.toml:2)"


def test_spaces_belong_to_the_secret(secret_file: Path) -> None:
    secret_file.write_text("  with spaces \n")
    assert settings("broker.password_file = 'pass.txt'").settings.broker.password.reveal() == "  with spaces "


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, secret_file: Path) -> None:
    monkeypatch.setenv("HOME", str(secret_file.parent))
    assert settings("broker.password_file = '~/pass.txt'").settings.broker.password.reveal() == S


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "its first line is empty"),
        (b"\nx", "its first line is empty"),
        (b"\xff\n", "not UTF-8"),
        (b"x" * 65_537, "its first line is longer than 65536 bytes"),
    ],
)
def test_files_without_a_secret(secret_file: Path, content: bytes, reason: str) -> None:
    secret_file.write_bytes(content)
    assert str(refusal("broker.password_file = 'pass.txt'")) == (
        f"broker.password_file (my.toml:1): pass.txt cannot be used: {reason}; its first line must be the secret"
    )


@pytest.mark.parametrize(("path", "reason"), [("missing", "No such file"), (".", "Is a directory")])
def test_files_that_cannot_be_read(path: str, reason: str) -> None:
    assert f"{path} cannot be used: {reason}" in str(refusal(f"phoenix.token_file = '{path}'"))


def test_both_in_one_layer_is_an_error() -> None:
    error = refusal("[broker]\npassword = 'x'\npassword_file = 'pass.txt'")
    assert "broker.password (my.toml:2) and broker.password_file (my.toml:3) are both given; keep one" in str(error)
    environ = {"INFERTOOL_BROKER__PASSWORD": "x", "INFERTOOL_BROKER__PASSWORD_FILE": "pass.txt"}
    assert "are both given" in str(refusal(environ=environ))


def test_a_later_file_displaces_an_earlier_secret() -> None:
    given = {"INFERTOOL_BROKER__PASSWORD_FILE": "pass.txt", "ACTIVEMQ_PASSWORD": "other"}
    loaded = settings("broker.password = 'earlier'", environ=given)
    assert loaded.settings.broker.password.reveal() == S


def test_a_later_secret_displaces_an_earlier_file() -> None:
    loaded = settings("broker.password_file = 'missing'", environ={"ACTIVEMQ_PASSWORD": "later"})
    assert loaded.settings.broker.password.reveal() == "later"
    assert loaded.settings.broker.password_file == ""
    assert loaded.origins["broker.password_file"] == "default"


def test_a_profile_displaces_what_the_file_says() -> None:
    toml = "broker.password = 'x'\n[profile.p.broker]\npassword_file = 'pass.txt'"
    assert settings(toml, profile="p").settings.broker.password.reveal() == S


@pytest.mark.parametrize("key", FILES)
def test_a_file_is_read_again_each_time(secret_file: Path, key: str) -> None:
    secret = secret_in(secret_file, key)
    before = secret.fixed()
    secret_file.write_text("rotated\n")
    assert secret.reveal() == "rotated"
    assert secret.fixed().reveal() == "rotated"
    assert before.reveal() == S


@pytest.mark.parametrize("key", FILES)
def test_a_replaced_file_is_read_through_its_link(secret_file: Path, key: str) -> None:
    """As Kubernetes mounts secrets: a link is turned to a new file."""
    link = secret_file.with_name("link")
    link.symlink_to(secret_file)
    secret = secret_in(link, key)
    other = secret_file.with_name("other")
    other.write_text("rotated")
    next_link = secret_file.with_name("next")
    next_link.symlink_to(other)
    next_link.rename(link)
    assert secret.reveal() == "rotated"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\n"])
def test_a_file_that_cannot_be_read_now_can_be_later(secret_file: Path, content: bytes | None) -> None:
    secret = secret_in(secret_file)
    if content is None:
        secret_file.unlink()
    else:
        secret_file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"phoenix.token_file.*pass.txt cannot be used") as caught:
        secret.reveal()
    assert caught.value.key == "phoenix.token_file"
    secret_file.write_text("back")
    assert secret.reveal() == "back"


def test_a_pipe_is_read_once_and_never_waited_for(secret_file: Path) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"piped\nrest\n")
    os.close(write_end)
    secret = secret_in(Path(f"/dev/fd/{read_end}"))
    assert [secret.reveal(), secret.reveal()] == ["piped", "piped"]
    os.close(read_end)


def test_a_pipe_in_the_place_of_a_file_is_an_error(secret_file: Path) -> None:
    secret = secret_in(secret_file)
    secret_file.unlink()
    os.mkfifo(secret_file)
    with pytest.raises(SettingsError, match="no regular file"):
        secret.reveal()


def test_the_working_folder_may_change(
    secret_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    loaded = settings("phoenix.token_file = 'pass.txt'")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert loaded.settings.phoenix.token.reveal() == S


def test_a_copy_in_another_process_reads_the_file_as_well(secret_file: Path) -> None:
    copy = pickle.loads(pickle.dumps(secret_in(secret_file)))
    secret_file.write_text("rotated")
    assert copy.reveal() == "rotated"


def test_nothing_of_a_file_is_shown(secret_file: Path) -> None:
    secret = secret_in(secret_file)
    assert secret
    assert S not in f"{secret} {secret!r} {[secret]}"
