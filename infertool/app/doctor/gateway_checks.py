"""Checks of what the gateway lets requests in with: the file of API keys, and the key set of tokens."""

from __future__ import annotations

import stat
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from infertool.app.doctor.check import Check
from infertool.app.doctor.hosts import SOON_S
from infertool.app.doctor.result import Finding, fail, failed, ok, skip, warn
from infertool.app.doctor.words import duration, number
from infertool.gateway.key_file import KeyFile, KeyFileError
from infertool.gateway.key_set import FETCH_S, fetch, is_safe
from infertool.gateway.keys import ApiKey
from infertool.secret import mask_url
from infertool.settings import GatewaySettings, Settings
from infertool.text.input import home_path

_MARGIN_S: Final = 5.0


def checks(settings: Settings, load: Check) -> list[Check]:
    """Return the checks."""
    gateway = settings.gateway
    limit_s = FETCH_S + _MARGIN_S
    return [
        Check(name="gateway.keys", run=lambda: _keys(gateway), needs=(load,)),
        Check(name="gateway.key_set", run=lambda: _key_set(gateway), needs=(load,), timeout_s=limit_s),
    ]


def _keys(settings: GatewaySettings) -> Finding:
    if not settings.keys_file:
        return skip("gateway.keys_file is not set")
    file = KeyFile(home_path(settings.keys_file))
    try:
        found = file.read()
        mode = file.path.stat().st_mode
    except KeyFileError as error:
        return failed(error)
    except OSError as error:
        return fail(f"the keys file {file.path}: {error.strerror}", "make it anew with infertool gateway keys add")
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return warn(
            f"the keys file {file.path} can be written by others ({stat.S_IMODE(mode):04o}): they can add keys",
            "chmod go-w FILE",
        )
    return _active(file.path, found)


def _active(path: Path, found: Sequence[ApiKey]) -> Finding:
    now = datetime.now(UTC)
    active = [key for key in found if key.state(now) == "active"]
    value = f"{number(len(active), 'active key')} of {len(found)}"
    if not active:
        return warn(f"{path}: {value}", "make one with infertool gateway keys add NAME", 0, "keys")
    # A name is safe if one of its keys lasts: an older one ends after a rotation.
    lasts: dict[str, float] = {}
    for key in active:
        left_s = (key.expires - now).total_seconds() if key.expires else float("inf")
        lasts[key.name] = max(left_s, lasts.get(key.name, 0.0))
    if soon := sorted(name for name, left_s in lasts.items() if left_s < SOON_S):
        first = min(lasts.values())
        value = f"{value}; {', '.join(soon)}: the first ends in {duration(first)}"
        return warn(value, "infertool gateway keys rotate NAME, or add one with a later end", len(active), "keys")
    return ok(value, len(active), "keys")


def _key_set(settings: GatewaySettings) -> Finding:
    if not settings.jwks_url:
        return skip("gateway.jwks_url is not set")
    if not (settings.jwt_issuer and settings.jwt_audience):
        return fail("gateway.jwks_url needs gateway.jwt_issuer and gateway.jwt_audience", "set both")
    shown = mask_url(settings.jwks_url)
    try:
        keys = fetch(settings.jwks_url)
    except ImportError:
        return fail("joserfc is not installed", f"{Path(sys.executable).name} -m pip install 'infertool[gateway]'")
    except (OSError, ValueError) as error:
        hint = "see gateway.jwks_url; until it can be read, tokens are answered with 503"
        return fail(f"{shown} cannot be read: {error}", hint)
    value = f"{shown}: {number(len(keys), 'key')} for tokens"
    if not is_safe(settings.jwks_url):
        hint = "take https: whoever is between here and there can put keys of their own into it"
        return warn(value, hint, len(keys), "keys")
    return ok(value, len(keys), "keys")
