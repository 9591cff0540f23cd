"""Checks of the settings: are they valid, do they agree with each other, who can read the files of secrets."""

from __future__ import annotations

import re
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from infertool.app.consumer import check as check_consumer
from infertool.app.doctor.check import Check
from infertool.app.doctor.hosts import SOON_S
from infertool.app.doctor.result import Finding, fail, failed, ok, skip, warn
from infertool.app.doctor.words import duration, number
from infertool.consumer.consumer import Until
from infertool.errors import SettingsError
from infertool.net.certificate import validity_end
from infertool.settings import Settings
from infertool.settings.keys import flatten
from infertool.settings.load import Loaded
from infertool.settings.secrets import FILES
from infertool.text.input import home_path

_CERTIFICATES: Final = ("broker.tls_cert_file", "phoenix.tls_cert_file", "model.tls_cert_file", "gateway.tls_cert_file")
_PEM: Final = re.compile(f"{re.escape(ssl.PEM_HEADER)}.*?{re.escape(ssl.PEM_FOOTER)}", re.DOTALL)
_KEYS: Final = (
    "broker.tls_key_file",
    "phoenix.tls_key_file",
    "model.tls_key_file",
    "gateway.tls_key_file",
    "gateway.keys_file",
)


def load_check(loaded: Loaded | SettingsError) -> Check:
    """Return the check that all others need."""
    return Check(name="settings.load", run=lambda: _loaded(loaded))


def checks(settings: Settings, load: Check) -> list[Check]:
    """Return the other checks of settings."""
    return [
        Check(name="settings.consistent", run=lambda: _consistent(settings), needs=(load,)),
        Check(name="settings.secrets", run=lambda: _secrets(settings), needs=(load,)),
        Check(name="settings.certificates", run=lambda: _certificates(settings), needs=(load,)),
    ]


def _loaded(loaded: Loaded | SettingsError) -> Finding:
    if isinstance(loaded, SettingsError):
        return failed(loaded)
    changed = sum(origin != "default" for origin in loaded.origins.values())
    files = ", ".join(map(str, loaded.files)) or "no settings file"
    return ok(f"{files}; {changed} of {len(loaded.origins)} settings are set", changed, "settings")


def _consistent(settings: Settings) -> Finding:
    check_consumer(settings, Until())
    return ok(f"{settings.broker.queue} to {settings.publish.mode}, dead letters to {settings.deadletter.queue}")


def _secrets(settings: Settings) -> Finding:
    values = flatten(settings)
    files = [(key, Path(values[key])) for key in (*FILES.values(), *_KEYS) if values[key]]
    if not files:
        return skip("no secret is in a file of its own")
    open_to_all = list(_readable_by_others(files))
    if open_to_all:
        return warn("; ".join(open_to_all), "take the rights of others away: chmod o-rwx FILE")
    return ok(f"{number(len(files), 'file')}, none readable by others", len(files), "files")


def _certificates(settings: Settings) -> Finding:
    values = flatten(settings)
    files = [(key, Path(values[key])) for key in _CERTIFICATES if values[key]]
    if not files:
        return skip("no certificate of our own is set")
    lefts: list[float] = []
    words: list[str] = []
    for key, path in files:
        try:
            left_s = _left_s(path)
        except (OSError, ValueError) as fault:
            reason = fault.strerror if isinstance(fault, OSError) else "it holds no certificate in PEM form"
            return fail(f"{key} {path}: {reason}", "name a PEM file with the certificate first")
        lefts.append(left_s)
        words.append(f"{key} {'expires in' if left_s > 0 else 'expired'} {duration(abs(left_s))}")
    found = fail if min(lefts) <= 0 else warn if min(lefts) < SOON_S else None
    value = "; ".join(words)
    return found(value, "have it renewed", min(lefts), "seconds") if found else ok(value, min(lefts), "seconds")


def _left_s(path: Path) -> float:
    """Return for how long the first certificate of a PEM file is valid. Raises `OSError`, `ValueError`."""
    text = home_path(path).read_text(encoding="ascii", errors="replace")
    first = _PEM.search(text)
    end = validity_end(ssl.PEM_cert_to_DER_cert(first[0])) if first else None
    if end is None:
        raise ValueError(path)
    return end - time.time()


def _readable_by_others(files: list[tuple[str, Path]]) -> Iterator[str]:
    for key, path in files:
        try:
            mode = home_path(path).stat().st_mode
        except OSError as fault:
            yield f"{key} {path}: {fault.strerror}"
            continue
        if stat.S_ISREG(mode) and mode & stat.S_IRWXO:
            yield f"{key} {path} is readable by all ({stat.S_IMODE(mode):04o})"
