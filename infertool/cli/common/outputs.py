"""Forms of output that `-o` chooses between."""

from __future__ import annotations

from enum import StrEnum


class TextOrJson(StrEnum):
    """Text for people, JSON for scripts."""

    text = "text"
    json = "json"


class TableOrJson(StrEnum):
    """A table for people, JSON for scripts."""

    table = "table"
    json = "json"
