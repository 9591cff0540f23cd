"""The list of results."""

from __future__ import annotations

from infertool.watch import columns
from infertool.watch.entry import Entry
from infertool.watch.ink import Line
from infertool.watch.listing import Listing, Sort
from infertool.watch.widgets.eventlist import EventList


class Results(EventList):
    """What the model found, newest first or sorted."""

    @property
    def listing(self) -> Listing:
        """The results."""
        return self._bus.state.results

    def title(self) -> str:
        """Return the order, where it is not the usual one, and the filter."""
        order = "" if self.listing.sort is Sort.NEWEST else f", {self.listing.sort}"
        return f"results{order}{self.filter_text}"

    def heads(self, width: int, _now: float) -> list[Line]:
        """Return the titles of the columns."""
        return [columns.heading(columns.layout(width), self.glyphs)]

    def row(self, entry: Entry, width: int, now: float) -> Line:
        """Return the cells of a result."""
        return columns.row(entry, columns.layout(width + 2), now, self.glyphs)

    def empty(self) -> list[str]:
        """Say why there is nothing."""
        state = self._bus.state
        if self.filter_text and len(self.listing.ring):
            return ["", "Nothing kept matches the filter."]
        if state.link.reason and not state.played:
            return ["", *state.link.reason.split("; "), "", "It is tried again until it works."]
        return ["", "Waiting for results."]
