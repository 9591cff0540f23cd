"""Finds the line of each key in a TOML text, for errors and origins; and writes values as TOML."""

from __future__ import annotations

import json
import re
from typing import Any

_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?")
_ASSIGNMENT = re.compile(r"\s*([\w.\-\"' ]+?)\s*=")


def line_numbers(text: str) -> dict[str, int]:
    """Return the line, from 1, where each dotted name of table or key first stands.

    A look at each line, not a second parser: a multi-line string that looks like TOML can mislead it.
    """
    numbers: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _HEADER.fullmatch(line):
            table = _plain(header[1])
            numbers.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            numbers.setdefault(f"{table}.{_plain(assignment[1])}".lstrip("."), number)
    return numbers


def _plain(name: str) -> str:
    return re.sub(r"[\s\"']", "", name)


def dump(value: Any) -> str:
    """Return `value` (text, number, truth value, list or table) as TOML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {dump(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dump, value)) + "]"
    if isinstance(value, str | bool | int | float):
        return json.dumps(value)
    return str(value)  # dates and times
