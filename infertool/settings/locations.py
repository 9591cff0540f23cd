"""Every path that infertool looks at or writes to on its own (XDG Base Directory Specification 0.8)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FILE_NAME = "infertool.toml"


def config_candidates(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where a settings file is looked for; the first that exists is used."""
    return Path(FILE_NAME), _base(environ, "XDG_CONFIG_HOME", ".config") / FILE_NAME


def state_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder of what must survive a restart."""
    return _base(environ, "XDG_STATE_HOME", ".local/state")


def _base(environ: Mapping[str, str], variable: str, default: str) -> Path:
    folder = Path(environ.get(variable, ""))
    if not folder.is_absolute():  # the specification: a relative path is to be ignored
        folder = Path(environ.get("HOME") or Path.home()) / default
    return folder / "infertool"
