"""The settings as they may be shown: secrets masked, each with its origin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from infertool.secret import MASK, Secret, is_telling, mask_url
from infertool.settings.keys import flatten
from infertool.settings.load import Loaded
from infertool.settings.toml import dump


@dataclass(frozen=True, slots=True)
class Row:
    """One setting, fit to be shown. `hidden` says that `value` is not the whole truth."""

    key: str
    value: Any
    origin: str
    hidden: bool


def rows(loaded: Loaded) -> list[Row]:
    """Return every setting in the order of the tree."""
    return [_row(key, value, loaded.origins[key]) for key, value in flatten(loaded.settings).items()]


def as_toml(loaded: Loaded) -> str:
    """Return the settings as a settings file; what is masked stays out as a comment."""
    return "\n".join(_toml_lines(loaded)).lstrip()


def _toml_lines(loaded: Loaded) -> Iterator[str]:
    for group, members in groupby(rows(loaded), key=lambda row: row.key.partition(".")[0]):
        yield f"\n[{group}]"
        for row in members:
            yield f"{'# ' if row.hidden else ''}{row.key.partition('.')[2]} = {dump(row.value)}"


def _row(key: str, value: Any, origin: str) -> Row:
    shown = _masked(key, value)
    return Row(key, shown, origin, hidden=shown != value and bool(value))


def _masked(key: str, value: Any) -> Any:
    if isinstance(value, Secret):
        return str(value)
    if key.endswith(".url") or (key == "model.spec" and "://" in value):
        return mask_url(value)
    return _without_secrets(value)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: MASK if is_telling(name) else _without_secrets(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value
