"""Paths: where settings and state files are, and settings with absolute paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from infertool.secret import Secret
from infertool.settings.tree import Settings

FILE_NAME = "infertool.toml"


def config_candidates(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the paths where a settings file is looked for; the first existing one is used."""
    return Path(FILE_NAME), _base(environ, "XDG_CONFIG_HOME", ".config") / FILE_NAME


def state_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder for state that must survive a restart."""
    return _base(environ, "XDG_STATE_HOME", ".local/state")


def _base(environ: Mapping[str, str], variable: str, default: str) -> Path:
    folder = Path(environ.get(variable, ""))
    if not folder.is_absolute():  # the XDG specification ignores relative paths
        folder = Path(environ.get("HOME") or Path.home()) / default
    return folder / "infertool"


_ENDINGS = ("_file", "_dir")


def anchored(settings: Settings) -> Settings:
    """Return `settings` with absolute paths: files are read again later, and a model may change the working folder."""
    result: Settings = _anchored(settings)
    return result


def _anchored(tree: Any) -> Any:
    changes: dict[str, Any] = {}
    for field in fields(tree):
        value = getattr(tree, field.name)
        if is_dataclass(value) and not isinstance(value, Secret):
            changes[field.name] = _anchored(value)
        elif value and field.name.endswith(_ENDINGS):
            changes[field.name] = str(Path(value).expanduser().absolute())
    return replace(tree, **changes)
