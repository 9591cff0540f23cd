"""Secrets in files: whether `password` or `password_file` applies, and reading the file.

A file is read when the settings are loaded, and again whenever the secret is sent: a rotated token works without a
restart. A pipe or standard input is read only once.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

from infertool.errors import SettingsError
from infertool.secret import Secret
from infertool.settings.keys import Entry
from infertool.text.input import home_path

FILES = {
    "broker.password": "broker.password_file",
    "to_broker.password": "to_broker.password_file",
    "phoenix.token": "phoenix.token_file",
    "model.token": "model.token_file",
    "alerting.webhook_secret": "alerting.webhook_secret_file",
    "gateway.webhook_secret": "gateway.webhook_secret_file",
    "gateway.client_key": "gateway.client_key_file",
}

_LONGEST_LINE = 65_536


def override(lower: Mapping[str, Entry], upper: Mapping[str, Entry]) -> dict[str, Entry]:
    """Merge two layers. A secret in `upper` removes that secret's file from `lower`, and the reverse.

    Raises `SettingsError` if `upper` has both a secret and a file for it.
    """
    merged = dict(lower)
    for secret, file in FILES.items():
        if _given(upper, secret) and _given(upper, file):
            raise _both(secret, file, upper)
        if _given(upper, file):
            merged.pop(secret, None)
        elif secret in upper:
            merged.pop(file, None)
    return {**merged, **upper}


def read_files(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return `entries` with the secrets read from their files. Raises `SettingsError`."""
    read = {
        secret: Entry(_secret(file, entries[file]), f"{entries[file].value} ({file} of {entries[file].origin})")
        for secret, file in FILES.items()
        if _given(entries, file)
    }
    return {**entries, **read}


def _given(layer: Mapping[str, Entry], key: str) -> bool:
    return key in layer and bool(layer[key].value)


def _both(secret: str, file: str, layer: Mapping[str, Entry]) -> SettingsError:
    origin = layer[file].origin
    what = f"{secret} ({layer[secret].origin}) and {file} ({origin}) are both given"
    return SettingsError(what, key=file, origin=origin, advice="keep one of them")


def _secret(key: str, entry: Entry) -> Secret:
    path = home_path(entry.value).absolute()
    if _may_be_read_once(path):
        return Secret(_first_line(key, entry, partial(_line_of_pipe, key, path, path.stat().st_ino)))
    return Secret(_read_again(key, entry, path), partial(_read_again, key, entry, path))


def _may_be_read_once(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:  # reading it says why
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _read_again(key: str, entry: Entry, path: Path) -> str:
    # A pipe in the file's place would block the reader forever.
    if _may_be_read_once(path):
        raise _unusable(key, entry, "it is no regular file any more")
    return _first_line(key, entry, partial(_line, path))


def _line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(_LONGEST_LINE + 1)


@cache
def _line_of_pipe(_key: str, path: Path, _inode: int) -> bytes:
    """Return what a pipe held for one secret: some commands load the settings several times."""
    return _line(path)


def _first_line(key: str, entry: Entry, line: Callable[[], bytes]) -> str:
    try:
        read = line()
    except OSError as error:
        raise _unusable(key, entry, error.strerror or type(error).__name__) from error
    if len(read) > _LONGEST_LINE:
        raise _unusable(key, entry, f"its first line is longer than {_LONGEST_LINE} bytes")
    try:
        text = read.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise _unusable(key, entry, "not UTF-8") from None
    if not text:
        raise _unusable(key, entry, "its first line is empty")
    return text


def _unusable(key: str, entry: Entry, reason: str) -> SettingsError:
    what = f"{key} ({entry.origin}): {entry.value} cannot be used: {reason}"
    return SettingsError(what, key=key, origin=entry.origin, advice="its first line must be the secret")
