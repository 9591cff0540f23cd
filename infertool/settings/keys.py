"""The tree as dotted keys (`broker.url`): each key's type, environment variable, and conversion of its value."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from infertool.errors import SettingsError
from infertool.secret import Secret
from infertool.settings.tree import NumberOrAuto, Settings
from infertool.text.input import did_you_mean

PREFIX = "INFERTOOL_"


@cache
def groups() -> Mapping[str, type]:
    """Return the class of each group, in the order of the tree."""
    return get_type_hints(Settings)


@cache
def types() -> Mapping[str, Any]:
    """Return the type of each dotted key, in the order of the tree."""
    hints = {group: get_type_hints(cls) for group, cls in groups().items()}
    return {f"{group}.{name}": hints[group][name] for group, cls in groups().items() for name in _names(cls)}


def _names(cls: type) -> list[str]:
    """Return the fields of a group; those that it shares with others (client_tls.py) are the last."""
    return [name for part in cls.__mro__ for name in inspect.get_annotations(part)]


def variable(key: str) -> str:
    """Return the environment variable of `key`: INFERTOOL_BROKER__URL for `broker.url`."""
    return PREFIX + key.replace(".", "__").upper()


def flatten(settings: Settings) -> dict[str, Any]:
    """Return all values by dotted key."""
    return {
        f"{group}.{name}": getattr(getattr(settings, group), name)
        for group, cls in groups().items()
        for name in _names(cls)
    }


def unflatten(values: Mapping[str, Any]) -> Settings:
    """Return the tree with `values`, and defaults for missing keys."""
    return Settings(
        **{
            group: cls(**{key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{group}.")})
            for group, cls in groups().items()
        }
    )


_EXPECTED = {
    Secret: "text", str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table",
    list[dict[str, Any]]: "a list of tables", list: "a list of texts", NumberOrAuto: "a whole number or auto",
}  # fmt: skip
_GIVEN = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table", list: "a list"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A converted value. `origin` is its source: file and line, environment variable, or flag."""

    value: Any
    origin: str


def typed(key: str, value: object, origin: str) -> Entry:
    """Convert `value`, from a TOML file or a flag, to the type of `key`. Raises `SettingsError`."""
    hint = types()[key]
    try:
        if hint is Secret:
            return Entry(Secret(msgspec.convert(value, str)), origin)
        return Entry(msgspec.convert(value, hint), origin)
    except msgspec.ValidationError:
        raise _wrong(key, value, origin, given=_GIVEN.get(type(value), type(value).__name__)) from None


def parsed(key: str, text: str, origin: str) -> Entry:
    """Convert the `text` of an environment variable to the type of `key`. Raises `SettingsError`."""
    hint = types()[key]
    try:
        if hint is Secret:
            return Entry(Secret(text), origin)
        if get_origin(hint) in {dict, list}:
            return Entry(msgspec.convert(json.loads(text), hint), origin)
        return Entry(msgspec.convert(text, hint, strict=False), origin)
    except (ValueError, RecursionError):  # msgspec.ValidationError and json.JSONDecodeError are ValueErrors
        raise _wrong(key, text, origin, given="something else") from None


def _wrong(key: str, value: object, origin: str, *, given: str) -> SettingsError:
    hint = types()[key]
    if get_origin(hint) is Literal:
        options = get_args(hint)
        advice = did_you_mean(value, options) if isinstance(value, str) else ""
        what = f"{key} must be one of {', '.join(options)}"
    else:
        advice = ""
        expected = next(_EXPECTED[each] for each in (hint, get_origin(hint)) if each in _EXPECTED)
        what = f"{key} must be {expected}, not {given}"
    return SettingsError(f"{origin}: {what}", key=key, origin=origin, advice=advice)
