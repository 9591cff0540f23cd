"""The fields of the stats document that rules read: their dotted paths, kinds and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from infertool.telemetry.stats import COUNTS
from infertool.telemetry.stats_document import StatsDocument

Kind = Literal["int", "double", "string", "bool"]
Scalar = int | float | str | bool
# By dotted path; None, like a path that is not there, means that the figure is not known.
Values = Mapping[str, Scalar | None]

_KINDS: Final[Mapping[Any, Kind]] = {int: "int", float: "double", str: "string", bool: "bool"}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the document. `optional` is True if it may be unknown."""

    kind: Kind
    optional: bool


@cache
def known() -> Mapping[str, Field]:
    """Return all fields by dotted path."""
    counts = {f"counts.{name}": Field("int", optional=False) for name in COUNTS}
    return {**dict(_of(StatsDocument, "")), **counts}


def _of(cls: type, prefix: str) -> Iterator[tuple[str, Field]]:
    for name, hint in get_type_hints(cls).items():
        if is_dataclass(hint) and isinstance(hint, type):
            yield from _of(hint, f"{prefix}{name}.")
            continue
        members = set(get_args(hint)) if get_origin(hint) is UnionType else {hint}
        plain = next(iter(members - {type(None)}))
        if plain in _KINDS:
            yield prefix + name, Field(_KINDS[plain], optional=type(None) in members)


def flat(document: StatsDocument) -> dict[str, Scalar | None]:
    """Return the values of `document` by dotted path."""
    values = dict(_values(document, ""))
    values.update({f"counts.{name}": count for name, count in document.counts.items()})
    return values


def _values(tree: Any, prefix: str) -> Iterator[tuple[str, Scalar | None]]:
    for each in fields(tree):
        value = getattr(tree, each.name)
        if is_dataclass(value):
            yield from _values(value, f"{prefix}{each.name}.")
        elif prefix + each.name in known():
            yield prefix + each.name, value


def flat_json(document: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar | None]:
    """Return the values of a document that came as JSON; what is no field of ours is left out."""
    values: dict[str, Scalar | None] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            values.update(flat_json(value, f"{prefix}{name}."))
        elif prefix + name in known() and isinstance(value, Scalar | None):
            values[prefix + name] = value
    return values


def nested(values: Values, paths: frozenset[str]) -> dict[str, Any]:
    """Return `paths` of `values` as a tree for the evaluator, each number of the kind that its field has."""
    tree: dict[str, Any] = {}
    for path in paths:
        *groups, name = path.split(".")
        table = tree
        for group in groups:
            table = table.setdefault(group, {})
        value = values.get(path)
        table[name] = float(value) if known()[path].kind == "double" and isinstance(value, int) else value
    return tree
