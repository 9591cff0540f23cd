"""Loads the settings. In order, later wins: defaults, file, its profile, environment, flags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from infertool.errors import SettingsError
from infertool.settings import sources as settings_file
from infertool.settings.keys import Entry, flatten, typed, unflatten
from infertool.settings.paths import config_candidates
from infertool.settings.ranges import check
from infertool.settings.secrets import override, read_files
from infertool.settings.sources import PROFILE, from_aliases, from_variables
from infertool.settings.tree import Settings
from infertool.text.nearest import did_you_mean


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, where each value came from by dotted key, and the settings files that were read."""

    settings: Settings
    origins: Mapping[str, str]
    files: tuple[Path, ...]


def load(
    *,
    config: Path | None,
    profile: str | None,
    environ: Mapping[str, str],
    flags: Mapping[str, tuple[str, object]],
) -> Loaded:
    """Return the settings for this run, secrets read from their files. Raises `SettingsError`.

    `config` and `profile` are None when the user gave none; `flags` maps dotted keys to (flag as typed, value).
    """
    path = settings_file.find(config, environ)
    file = settings_file.read(path) if path else None
    layers = [
        *_file_layers(file, profile or environ.get(PROFILE), environ),
        from_aliases(environ),
        from_variables(environ),
        {key: typed(key, value, flag) for key, (flag, value) in flags.items()},
    ]
    entries = _defaults()
    for layer in layers:
        entries = override(entries, layer)
    entries = read_files({**_defaults(), **entries})
    check(entries)
    return Loaded(
        settings=unflatten({key: entry.value for key, entry in entries.items()}),
        origins={key: entry.origin for key, entry in entries.items()},
        files=(path,) if path else (),
    )


def _defaults() -> dict[str, Entry]:
    return {key: Entry(value, "default") for key, value in flatten(Settings()).items()}


def _file_layers(
    file: settings_file.SettingsFile | None, profile: str | None, environ: Mapping[str, str]
) -> Iterator[Mapping[str, Entry]]:
    if file:
        yield file.values
    if not profile:
        return
    if file is None:
        looked = ", ".join(map(str, config_candidates(environ)))
        raise SettingsError(f"there is no profile {profile}: no settings file was found", advice=f"looked for {looked}")
    if profile not in file.profiles:
        known = f"{file.path} has {', '.join(file.profiles) or 'none'}"
        advice = " ".join(filter(None, (did_you_mean(profile, file.profiles), known)))
        raise SettingsError(f"there is no profile {profile}", key=f"profile.{profile}", advice=advice)
    yield file.profiles[profile]
