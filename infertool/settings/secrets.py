"""Secrets that stand in files: which of `password` and `password_file` counts, and reading it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from infertool.errors import SettingsError
from infertool.secret import Secret
from infertool.settings.values import Entry

FILES = {
    "broker.password": "broker.password_file",
    "phoenix.token": "phoenix.token_file",
    "model.token": "model.token_file",
}

_LONGEST_LINE = 65_536


def override(lower: Mapping[str, Entry], upper: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return both layers as one; a secret of `upper` displaces a secret's file of `lower`, and the reverse.

    Raises `SettingsError` when `upper` gives a secret and a file for it.
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
    """Return `entries` with each secret whose file is given read from it. Raises `SettingsError`."""
    read = {
        secret: Entry(_first_line(file, entries[file]), f"{entries[file].value} ({file} of {entries[file].origin})")
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


def _first_line(key: str, entry: Entry) -> Secret:
    try:
        with Path(entry.value).expanduser().open("rb") as file:
            line = file.readline(_LONGEST_LINE).decode("utf-8-sig").rstrip("\r\n")
    except OSError as error:
        raise _unusable(key, entry, error.strerror or type(error).__name__) from error
    except UnicodeDecodeError:
        raise _unusable(key, entry, "not UTF-8") from None
    if not line:
        raise _unusable(key, entry, "its first line is empty")
    return Secret(line)


def _unusable(key: str, entry: Entry, reason: str) -> SettingsError:
    what = f"{key} ({entry.origin}): {entry.value} cannot be used: {reason}"
    return SettingsError(what, key=key, origin=entry.origin, advice="its first line must be the secret")
