"""What a bug report needs, in one file: masked settings with their origins, versions, results, names of variables.

No secret is in it: settings are masked as `config show` masks them, the environment is named without values, and what
the settings or a variable with a telling name hold as a secret is masked wherever else it would appear.
"""

from __future__ import annotations

import os
import platform
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from infertool import __version__
from infertool.app.doctor.environment_checks import versions
from infertool.app.doctor.result import Result
from infertool.errors import InfertoolError, OutputError, SettingsError
from infertool.secret import MASK, Secret, is_telling
from infertool.settings.display import rows
from infertool.settings.keys import PREFIX, flatten
from infertool.settings.load import Loaded
from infertool.text import json_text

# A shorter one would mask parts of common words.
_SHORTEST: Final = 4
_USER: Final = re.compile(r"([^\s@,/]*)@")
_PARAMETER: Final = re.compile(r"[?&#]([^=&#]+)=([^&#]*)")


def write(
    path: Path,
    loaded: Loaded | SettingsError,
    results: Sequence[Result],
    environ: Mapping[str, str],
    stats: bytes | None = None,
) -> Path:
    """Write the bundle, readable by its owner alone, and return its path. Raises `OutputError`.

    `stats` is the stats document of a running consumer.
    """
    hide = _Mask(secrets(loaded, environ))
    parts = {
        "results.json": [asdict(result) | {"docs": result.anchor} for result in results],
        "settings.json": _settings(loaded),
        "versions.json": _versions(),
        "environment.json": sorted(environ),
        **({"stats.json": json_text.loads(stats)} if stats else {}),
    }
    try:
        with (
            os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for name, content in parts.items():
                archive.writestr(name, hide(json_text.dumps(content).decode()) + "\n")
    except OSError as fault:
        raise OutputError(f"{path}: {fault.strerror}") from None
    return path


def secrets(loaded: Loaded | SettingsError, environ: Mapping[str, str]) -> set[str]:
    """Return all texts that are secrets: of settings, of URLs, and of variables with telling names."""
    found: set[str] = set()
    if isinstance(loaded, Loaded):
        for value in flatten(loaded.settings).values():
            found.update(_within(value))
        # Of many webhooks the path is the secret.
        found.update(_path(loaded.settings.alerting.webhook_url))
    for name, text in environ.items():
        if is_telling(name):
            found.add(text)
        if name.startswith(PREFIX) or "://" in text:
            found.update(_in_url(text))
    return {text for text in found if len(text) >= _SHORTEST}


def _within(value: Any) -> Iterator[str]:
    if isinstance(value, Secret):
        try:
            yield value.reveal()
        except InfertoolError:  # its file is gone, and so is the secret
            return
    elif isinstance(value, str):
        yield from _in_url(value)
    elif isinstance(value, dict):
        for name, item in value.items():
            if is_telling(name):
                yield str(item)
            yield from _within(item)
    elif isinstance(value, list):
        for item in value:
            yield from _within(item)


def _path(url: str) -> Iterator[str]:
    path = url.partition("://")[2].partition("/")[2]
    if path:
        yield f"/{path}"


def _in_url(text: str) -> Iterator[str]:
    """Yield passwords, users without one (they may be tokens), and parameters with telling names."""
    if "://" not in text:
        return
    for part in _USER.findall(text.partition("://")[2]):
        user, _, password = part.partition(":")
        yield password or user
        yield unquote(password or user)
    for name, value in _PARAMETER.findall(text):
        if is_telling(unquote(name)):
            yield value
            yield unquote(value)


class _Mask:
    """Replaces secrets in a text, longest first, also where they are percent-encoded or escaped for JSON."""

    def __init__(self, texts: set[str]) -> None:
        forms = {form for text in texts for form in (text, quote(text, safe=""), json_text.dumps(text).decode()[1:-1])}
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, MASK)
        return text


def _settings(loaded: Loaded | SettingsError) -> Any:
    if isinstance(loaded, SettingsError):
        return {"error": str(loaded)}
    return {row.key: {"value": row.value, "origin": row.origin} for row in rows(loaded)}


def _versions() -> dict[str, Any]:
    return {
        "infertool": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(),
    }
