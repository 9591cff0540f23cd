"""Where in a move a line is cut."""

from __future__ import annotations

from enum import StrEnum


class Cut(StrEnum):
    """Where in a move the connection is cut, once. A broker without one of the steps is cut at the nearest."""

    BEFORE_SENDS = "before the broker has what is sent"
    AFTER_SENDS = "before the broker confirms what is sent"
    BEFORE_END = "before the broker has the commit, or the acks"
    AFTER_END = "after the commit, or the acks"
