"""Sums up repeated log lines: the first of a kind is written at once, the others in one line every 10 seconds."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Interval over which repeats are summed up. Seconds.
INTERVAL_S = 10.0
# Maximum number of kinds of one group that are written at once in an interval.
MOST_KINDS = 10
# Maximum number of kinds remembered for the next interval.
MOST_KNOWN = 100
# Maximum number of kinds that a sum names; its count includes the others.
NAMED_KINDS = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One log line. Lines of the same `group` ("failures") and `kind` are repeats of each other."""

    level: int
    group: str
    kind: str
    text: str
    fields: Mapping[str, Any]


Write = Callable[[int, str, Mapping[str, Any]], None]


@dataclass(slots=True)
class _Group:
    """One group's lines in one interval."""

    # Kinds of the last interval (`known`) and of this one (`seen`): they are not written again.
    known: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    written: int = 0
    held: Counter[str] = field(default_factory=Counter)
    level: int = logging.DEBUG
    latest: Line | None = None


class Repeats:
    """Writes lines through `write(level, text, fields)`. Thread-safe.

    A kind that did not occur for one interval is written at once when it occurs again.
    """

    def __init__(self, write: Write, interval_s: float = INTERVAL_S) -> None:
        self._write = write
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._groups: dict[str, _Group] = {}
        self._timer: threading.Timer | None = None
        self._began = 0.0
        self._closed = False

    def add(self, line: Line) -> None:
        """Write `line` now, or count it for the next sum."""
        with self._lock:
            if not self._must_wait(line):
                self._write(line.level, line.text, line.fields)
            if self._timer is None and not self._closed:
                self._start_timer()

    def close(self) -> None:
        """Write the pending sums, and stop the timer. Later lines are written at once."""
        with self._lock:
            self._closed = True
            if self._timer:
                self._timer.cancel()
                self._timer = None
            self._sum_up()
            self._groups.clear()

    def _must_wait(self, line: Line) -> bool:
        if self._closed:
            return False
        group = self._groups.setdefault(line.group, _Group())
        is_new = line.kind not in group.known and line.kind not in group.seen
        if len(group.seen) < MOST_KNOWN:
            group.seen.add(line.kind)
        if is_new and group.written < MOST_KINDS:
            group.written += 1
            return False
        group.held[line.kind] += 1
        group.level = max(group.level, line.level)
        group.latest = line
        return True

    def _start_timer(self) -> None:
        self._began = time.monotonic()
        self._timer = threading.Timer(self._interval_s, self._end_interval)
        self._timer.name = "log-repeats"
        self._timer.daemon = True
        self._timer.start()

    def _end_interval(self) -> None:
        with self._lock:
            self._timer = None
            if self._closed:
                return
            self._sum_up()
            self._groups = {name: _Group(known=group.seen) for name, group in self._groups.items() if group.seen}
            if self._groups:
                self._start_timer()

    def _sum_up(self) -> None:
        seconds = math.ceil(time.monotonic() - self._began)
        for name, group in self._groups.items():
            if group.latest:
                text = _text(name, group, group.latest, seconds)
                self._write(group.level, text, _fields(name, group, group.latest, seconds))


def _text(name: str, group: _Group, latest: Line, seconds: int) -> str:
    count = group.held.total()
    # A single repeat is written as it is.
    if count == 1:
        return latest.text
    kinds = group.held.most_common(NAMED_KINDS)
    named = ", ".join(f"{kind} {times}" for kind, times in kinds)
    more = ", …" if len(group.held) > NAMED_KINDS else ""
    counted = f", {len(group.held)} kinds ({named}{more})" if len(group.held) > 1 else ""
    return f"+ {count} more {name} in {seconds} s{counted}; the latest: {latest.text}"


def _fields(name: str, group: _Group, latest: Line, seconds: int) -> Mapping[str, Any]:
    kinds = dict(group.held.most_common(MOST_KINDS))
    return {**latest.fields, "repeats": name, "count": group.held.total(), "seconds": seconds, "kinds": kinds}
