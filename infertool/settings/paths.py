"""Settings whose files stay where they are when the working folder changes."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from infertool.secret import Secret
from infertool.settings.tree import Settings

_ENDINGS = ("_file", "_dir")


def anchored(settings: Settings) -> Settings:
    """Return `settings` with absolute paths: a model may change the working folder, and files are read again later."""
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
