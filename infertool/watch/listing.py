"""A list of entries for display: newest first or sorted, filtered, paused, with a cursor.

Filtering costs about 10 us an entry, so a new filter is applied to the kept entries in steps, newest first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import islice

from infertool.filters.expression import Filter, FilterError, NotEvaluatedError
from infertool.watch.entry import Entry, Kind

# Maximum of all payloads in one ring. With ordinary events the number of entries is the tighter limit. Bytes.
MOST_BYTES = 64 * 1024 * 1024


class Ring:
    """Keeps the newest `keep` entries, fewer if their payloads are large. `dropped` counts the removed ones."""

    def __init__(self, keep: int, most_bytes: int = MOST_BYTES) -> None:
        self.dropped = 0
        self._keep = keep
        self._most_bytes = most_bytes
        self._bytes = 0
        self._entries: deque[Entry] = deque()

    def add(self, entries: Sequence[Entry]) -> None:
        """Add newer entries, oldest first. The newest one is kept regardless of its size."""
        kept = self._entries
        for entry in entries:
            kept.append(entry)
            self._bytes += len(entry.body)
            while len(kept) > self._keep or (self._bytes > self._most_bytes and len(kept) > 1):
                self._bytes -= len(kept.popleft().body)
                self.dropped += 1

    @property
    def first_number(self) -> int:
        """The number of the oldest entry; 0 if there is none."""
        return self._entries[0].number if self._entries else 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __reversed__(self) -> Iterator[Entry]:
        return reversed(self._entries)


# Maximum of entries filtered in one step: about 15 ms.
STEP = 1_000
# Shown if the filter takes too long on an entry; the step then ends, and the rest follows in the next one.
_TOO_LONG = "some events take too long to be tried, and are left out"


class Sort(StrEnum):
    """The sort orders of a list."""

    NEWEST = "newest first"
    SLOWEST = "slowest first"
    LEAST_SURE = "least confident first"
    CLASS = "by class"


_LAST = float("inf")
_KEYS: dict[Sort, Callable[[Entry], tuple[float | str, int]]] = {
    Sort.SLOWEST: lambda e: (_LAST if e.processing_ms is None else -e.processing_ms, -e.number),
    Sort.LEAST_SURE: lambda e: (_LAST if e.confidence is None else e.confidence, -e.number),
    Sort.CLASS: lambda e: (e.label, -e.number),
}


class Listing:
    """The list of one pane. `height` is the number of rows on a page; `version` changes with every visible change."""

    def __init__(self, keep: int) -> None:
        self.ring = Ring(keep)
        self.height = 1
        self.sort = Sort.NEWEST
        self.follow = True
        self.top = 0
        self.cursor = 0
        self.filter_error = ""
        self.version = 0
        self._filter: Filter | None = None
        self._shown: deque[Entry] = deque()
        self._sorted: list[Entry] | None = None
        self._changed = False
        self._unseen: deque[Entry] = deque(maxlen=keep)
        self._backlog: deque[Entry] = deque()
        self._frozen: tuple[Entry, ...] | None = None
        self._late = False
        self._waiting = 0

    # Queries

    @property
    def count(self) -> int:
        """The number of entries on all pages."""
        return len(self._shown)

    @property
    def paused(self) -> bool:
        """True if the list is paused."""
        return self._frozen is not None

    @property
    def waiting(self) -> int:
        """The number of kept entries that arrived since the pause."""
        return min(self._waiting, len(self.ring))

    def rows(self) -> list[Entry]:
        """Return the entries of the page."""
        rows = self._shown if self._sorted is None else self._sorted
        return list(islice(rows, self.top, self.top + self.height))

    def selected(self) -> Entry | None:
        """Return the entry under the cursor."""
        rows: Sequence[Entry] = self._shown if self._sorted is None else self._sorted
        return rows[self.cursor] if self.cursor < len(rows) else None

    def all_rows(self) -> list[Entry]:
        """Return the entries of all pages."""
        return list(self._shown if self._sorted is None else self._sorted)

    # New entries

    def add(self, entries: Sequence[Entry]) -> None:
        """Add newer entries, oldest first."""
        if not entries:
            return
        self.ring.add(entries)
        if self._frozen is not None:
            self._waiting += len(entries)
        else:
            self._unseen.extend(entries)

    def work(self) -> bool:
        """Update the list by one step; return True if more steps are needed."""
        if self._frozen is None:
            self._take_unseen()
            self._forget_dropped()
        self._take_backlog()
        return bool(self._unseen or self._backlog)

    def resort(self) -> None:
        """Sort again, unless the order is newest first. The cursor stays on its entry."""
        if self.sort is Sort.NEWEST or (self._sorted is not None and not self._changed):
            return
        self._changed = False
        selected = self.selected()
        self._sorted = sorted(self._shown, key=_KEYS[self.sort])
        self._go_to_entry(None if self.follow else selected)

    # Actions

    def fault_of(self, compiled: Filter) -> str:
        """Return why a filter fails on the newest entry; empty if it works."""
        newest = next((entry for entry in reversed(self.ring) if entry.kind is not Kind.GAP), None)
        fault = self._try(compiled, newest)[1] if newest else ""
        return "" if fault == _TOO_LONG else fault

    def set_filter(self, compiled: Filter | None) -> None:
        """Show only matching entries, also among the kept ones; None shows all."""
        self._filter = compiled
        self.filter_error = ""
        self._rebuild()

    def pause(self) -> None:
        """Stop updating the list. New entries are kept in the ring."""
        if self._frozen is None:
            while self.work():
                pass
            self._frozen = tuple(self.ring)
            self._waiting = 0

    def resume(self) -> None:
        """Update the list again, with the entries that arrived meanwhile."""
        if self._frozen is not None:
            self._frozen = None
            self._rebuild()

    def sort_next(self) -> None:
        """Switch to the next sort order."""
        orders = list(Sort)
        self.sort = orders[(orders.index(self.sort) + 1) % len(orders)]
        self._sorted = None
        self.resort()
        self._go_to(0)
        self.version += 1

    def set_follow(self, follow: bool) -> None:  # noqa: FBT001 - it is what the method sets
        """Stay at the first row if `follow`, else on the selected entry."""
        self.follow = follow
        if follow:
            self._go_to(0)

    def move(self, rows: int) -> None:
        """Move the cursor. Leaving the first row turns `follow` off."""
        self._go_to(self.cursor + rows)
        if self.cursor:
            self.follow = False

    def move_to(self, row: int) -> None:
        """Put the cursor on a row, counted over all pages."""
        self.move(row - self.cursor)

    def scroll(self, rows: int) -> None:
        """Scroll the page, and move the cursor only as far as necessary."""
        self.top = min(max(self.top + rows, 0), max(self.count - self.height, 0))
        self.cursor = min(max(self.cursor, self.top), self.top + self.height - 1, max(self.count - 1, 0))
        if self.top:
            self.follow = False
        self.version += 1

    def resize(self, height: int) -> None:
        """Set the number of rows on a page."""
        self.height = max(height, 1)
        self._go_to(self.cursor)

    # Internals

    def _rebuild(self) -> None:
        selected = None if self.follow else self.selected()
        source: Iterable[Entry] = reversed(self.ring) if self._frozen is None else reversed(self._frozen)
        self._shown.clear()
        self._unseen.clear()
        self._sorted = None
        self._backlog = deque(source)
        self._take_backlog()
        self.resort()
        self._go_to_entry(selected)

    def _take_unseen(self) -> None:
        before = len(self._shown)
        waiting = len(self._unseen)
        self._late = False
        for _ in range(waiting if self._filter is None else min(waiting, STEP)):
            entry = self._unseen.popleft()
            if self._matches(entry):
                self._shown.appendleft(entry)
            if self._late:
                break
        added = len(self._shown) - before
        if added:
            self.version += 1
            self._changed = True
            if before and not self.follow and self._sorted is None:
                self.cursor += added
                self.top += added

    def _take_backlog(self) -> None:
        before = len(self._shown)
        waiting = len(self._backlog)
        oldest = self.ring.first_number if self._frozen is None else 0
        self._late = False
        for _ in range(waiting if self._filter is None else min(waiting, STEP)):
            entry = self._backlog.popleft()
            if entry.number >= oldest and self._matches(entry):
                self._shown.append(entry)
            if self._late:
                break
        if len(self._shown) != before:
            self.version += 1
            self._changed = True

    def _forget_dropped(self) -> None:
        oldest = self.ring.first_number
        before = len(self._shown)
        while self._shown and self._shown[-1].number < oldest:
            self._shown.pop()
        if len(self._shown) != before:
            self._changed = True
            self._go_to(self.cursor)

    def _matches(self, entry: Entry) -> bool:
        if self._filter is None or entry.kind is Kind.GAP:
            return True
        matches, fault = self._try(self._filter, entry)
        self._late = self._late or fault == _TOO_LONG
        self.filter_error = self.filter_error or fault
        return matches

    @staticmethod
    def _try(compiled: Filter, entry: Entry) -> tuple[bool, str]:
        try:
            return compiled.matches(entry.payload, topic=entry.topic, event=entry.event), ""
        except NotEvaluatedError:
            return False, _TOO_LONG
        except FilterError as error:  # the result is not a bool
            return False, error.reason

    def _go_to_entry(self, entry: Entry | None) -> None:
        rows: Iterable[Entry] = () if entry is None else self._shown if self._sorted is None else self._sorted
        self._go_to(next((row for row, each in enumerate(rows) if each is entry), 0))

    def _go_to(self, row: int) -> None:
        self.cursor = min(max(row, 0), max(self.count - 1, 0))
        highest = max(self.count - self.height, 0)
        self.top = min(max(self.top, self.cursor - self.height + 1, 0), self.cursor, highest)
        self.version += 1
