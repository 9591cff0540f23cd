"""Secrets in files, as the settings make them."""

from __future__ import annotations

from pathlib import Path

from infertool.secret import Secret
from infertool.settings.keys import Entry
from infertool.settings.secrets import FILES, read_files


def secret_in(file: Path, key: str = "phoenix.token") -> Secret:
    """Return the secret of `key` whose file is `file`."""
    secret = read_files({FILES[key]: Entry(str(file), "a test")})[key].value
    assert isinstance(secret, Secret)
    return secret
