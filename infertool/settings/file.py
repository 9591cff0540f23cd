"""Reads a settings file: the tree itself, and below `[profile.NAME]` the same tree again."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infertool.errors import SettingsError
from infertool.nearest import did_you_mean, nearest
from infertool.settings.keys import groups, types
from infertool.settings.locations import config_candidates
from infertool.settings.toml import line_numbers
from infertool.settings.values import Entry, typed


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What a settings file says, converted: its own values, and those of each profile."""

    path: Path
    values: Mapping[str, Entry]
    profiles: Mapping[str, Mapping[str, Entry]]


def find(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the settings file to use: `config`, which must exist, or the first candidate that does."""
    if config is None:
        return next((path for path in config_candidates(environ) if path.is_file()), None)
    if not config.exists():
        folder = config.parent
        advice = did_you_mean(str(config), map(str, folder.glob("*.toml"))) or "`infertool config init` writes one"
        raise SettingsError(f"there is no settings file {config}", origin=str(config), advice=advice)
    return config


def read(path: Path) -> SettingsFile:
    """Read all of the file, the profiles that are not used, too. Raises `SettingsError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        tables = tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}", origin=str(path)) from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise SettingsError(f"{path} is not TOML: {error}", origin=str(path)) from None
    return _Reader(path, line_numbers(text)).read(tables)


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    lines: Mapping[str, int] = field(repr=False)

    def read(self, tables: dict[str, Any]) -> SettingsFile:
        profiles = self._table("profile", tables.pop("profile", {}))
        return SettingsFile(
            path=self.path,
            values=dict(self._entries(tables, "")),
            profiles={
                name: dict(self._entries(self._table(f"profile.{name}", tree), f"profile.{name}."))
                for name, tree in profiles.items()
            },
        )

    def _entries(self, tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Entry]]:
        for group, table in tree.items():
            if group not in groups():
                valid = groups() if prefix else (*groups(), "profile")
                raise self._unknown(prefix + group, [prefix + name for name in valid])
            for name, value in self._table(prefix + group, table).items():
                key = f"{group}.{name}"
                if key not in types():
                    raise self._unknown(prefix + key, [prefix + valid for valid in types()])
                yield key, typed(key, value, self._origin(prefix + key))

    def _table(self, key: str, value: object) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        origin = self._origin(key)
        raise SettingsError(f"{origin}: {key} must be a table", key=key, origin=origin, advice=f"write [{key}]")

    def _unknown(self, key: str, valid: list[str]) -> SettingsError:
        origin = self._origin(key)
        return SettingsError(
            f"{origin}: unknown key {key}",
            key=key,
            origin=origin,
            nearest=nearest(key, valid),
            advice=did_you_mean(key, valid) or "`infertool config init` writes every key there is",
        )

    def _origin(self, key: str) -> str:
        """Return file and line of `key`, or of the nearest table around it that stands on a line of its own."""
        name = key
        while name and name not in self.lines:
            name = name.rpartition(".")[0]
        return f"{self.path}:{self.lines[name]}" if name else str(self.path)
