"""The tree as dotted keys (`broker.url`), with the type of each and the environment variable that sets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints

from infertool.settings.tree import Settings

PREFIX = "INFERTOOL_"


@cache
def groups() -> Mapping[str, type]:
    """Return the class of every group, in the order of the tree."""
    return get_type_hints(Settings)


@cache
def types() -> Mapping[str, Any]:
    """Return the type of every dotted key, in the order of the tree."""
    return {f"{group}.{name}": hint for group, cls in groups().items() for name, hint in get_type_hints(cls).items()}


def variable(key: str) -> str:
    """Return the environment variable of `key`: INFERTOOL_BROKER__URL for `broker.url`."""
    return PREFIX + key.replace(".", "__").upper()


def flatten(settings: Settings) -> dict[str, Any]:
    """Return every value by its dotted key."""
    return {
        f"{group}.{field.name}": getattr(getattr(settings, group), field.name)
        for group, cls in groups().items()
        for field in fields(cls)
    }


def unflatten(values: Mapping[str, Any]) -> Settings:
    """Return the tree with `values`, and defaults for the keys that are not among them."""
    return Settings(
        **{
            group: cls(**{key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{group}.")})
            for group, cls in groups().items()
        }
    )
