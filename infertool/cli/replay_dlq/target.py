"""The other broker of `replay-dlq --to-broker`: a URL, or a profile of the settings file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from infertool.errors import SettingsError, UsageError
from infertool.settings import Settings
from infertool.settings.broker import BrokerSettings
from infertool.settings.keys import variable
from infertool.settings.load import ALIASES, PROFILE, load

_BROKER = "broker."


def target(settings: Settings, text: str, config: Path | None) -> BrokerSettings:
    """Return how to reach the broker that `--to-broker` names by `text`. Raises `UsageError`, `SettingsError`.

    With a URL, all else is as for the configured broker; `config` is the settings file of a profile. The login of
    `to_broker` goes before that of either, but for the user part of a URL.
    """
    broker = dataclasses.replace(settings.broker, url=text) if "://" in text else _of_profile(text, config)
    login = settings.to_broker
    if login.user:
        broker = dataclasses.replace(broker, user=login.user)
    if login.password:
        broker = dataclasses.replace(broker, password=login.password)
    return broker


def _of_profile(name: str, config: Path | None) -> BrokerSettings:
    """Return `[profile.NAME.broker]`. What the environment says of the broker is about the one that has the letters."""
    ours = {PROFILE, *(alias for alias, key in ALIASES.items() if key.startswith(_BROKER))}
    prefix = variable(_BROKER)
    environ = {key: value for key, value in os.environ.items() if key not in ours and not key.startswith(prefix)}
    try:
        return load(config=config, profile=name, environ=environ, flags={}).settings.broker
    except SettingsError as fault:
        if not fault.what.startswith("there is no profile"):
            raise
        # What is typed may be a URL without its scheme, with a password in it.
        shown = name.rpartition("@")[2]
        raise UsageError(
            f"--to-broker {shown!r} is neither a URL nor a profile of the settings file",
            advice=fault.advice if shown == name else "write SCHEME://HOST:PORT",
        ) from None
