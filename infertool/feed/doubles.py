"""Recognising live what stands in the record already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from infertool.feed.arrival import Arrival

# A record overlaps with what comes live only at its end.
_REMEMBERED = 100_000

_Key = tuple[str, str]


class Doubles:
    """Remembers the last arrivals of a record by event and `event_id`."""

    def __init__(self) -> None:
        self._known: dict[_Key, None] = {}

    def note(self, arrivals: Iterable[Arrival]) -> None:
        """Remember what is in the record."""
        for key in map(_key, arrivals):
            if key:
                self._known.pop(key, None)
                self._known[key] = None
        for key in list(self._known)[:-_REMEMBERED]:
            del self._known[key]

    def without(self, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """Return those that are not in the record; all that have no `event_id` are among them."""
        if not self._known:
            return arrivals
        return [arrival for arrival in arrivals if _key(arrival) not in self._known]


def _key(arrival: Arrival) -> _Key | None:
    event_id = arrival.payload.get("event_id") if isinstance(arrival.payload, dict) else None
    return (arrival.event, event_id) if isinstance(event_id, str) else None
