"""The list of failures, and the alert rules that fire above it."""

from __future__ import annotations

from infertool.watch import columns
from infertool.watch.entry import Entry
from infertool.watch.ink import Line
from infertool.watch.listing import Listing
from infertool.watch.widgets.eventlist import EventList
from infertool.watch.words import count

# So that the failures keep some room.
_MOST_RULES = 3


class Alerts(EventList):
    """Failures and changes of alert rules, newest first."""

    @property
    def listing(self) -> Listing:
        """The failures and alerts."""
        return self._bus.state.alerts

    def title(self) -> str:
        """Return how many rules fire, and the filter."""
        firing = len(self._bus.state.rules)
        return f"failures and alerts{f', {count(firing)} firing' if firing else ''}{self.filter_text}"

    def heads(self, width: int, _now: float) -> list[Line]:
        """Return the rules that fire, the newest first."""
        rules = list(reversed(self._bus.state.rules.values()))[:_MOST_RULES]
        return [columns.rule_row(rule, width, _now, self.glyphs) for rule in rules]

    def row(self, entry: Entry, width: int, now: float) -> Line:
        """Return the line of a failure."""
        return columns.alert_row(entry, width, now, self.glyphs)

    def empty(self) -> list[str]:
        """Say that all is well, or that the filter hides it."""
        if self.filter_text and len(self.listing.ring):
            return ["Nothing kept matches the filter."]
        return ["No failures."]
