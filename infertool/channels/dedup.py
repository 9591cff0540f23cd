"""Recognising live what stands in the record already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from infertool.channels.event import ChannelEvent, encode

# A record overlaps with what comes live only at its end.
_REMEMBERED = 100_000
_SUCCEEDED = "SUCCESS"
_RESULT = "new_result"

_Key = tuple[str, ...]


class Dedup:
    """Remembers the last arrivals of a record: a result by its event, a failure by its event and its time.

    So a result that was pushed again, or made again, is a double, and so is a failure that was reported again; an event
    that failed again is not.
    """

    def __init__(self) -> None:
        self._known: dict[_Key, None] = {}

    def note(self, arrivals: Iterable[ChannelEvent]) -> None:
        """Remember what is in the record."""
        for key in map(_key, arrivals):
            if key:
                self._known.pop(key, None)
                self._known[key] = None
        for key in list(self._known)[:-_REMEMBERED]:
            del self._known[key]

    def without(self, arrivals: Sequence[ChannelEvent]) -> Sequence[ChannelEvent]:
        """Return those that are not in the record; all that have no `event_id` are among them."""
        if not self._known:
            return arrivals
        return [arrival for arrival in arrivals if _key(arrival) not in self._known]


def _key(arrival: ChannelEvent) -> _Key | None:
    payload = arrival.payload
    if not isinstance(payload, dict) or not isinstance(event_id := payload.get("event_id"), str):
        return None
    if payload.get("status", _SUCCEEDED if arrival.event == _RESULT else None) == _SUCCEEDED:
        return arrival.event, event_id
    return arrival.event, event_id, _occasion(payload)


def _occasion(payload: Mapping[str, Any]) -> str:
    """Return what tells a failure from another of the same event: its time, else all that it says."""
    failed_at = payload.get("failed_at")
    if isinstance(failed_at, str):
        return failed_at
    # A server may put the keys into another order.
    return orjson.dumps(orjson.loads(encode(payload)), option=orjson.OPT_SORT_KEYS).decode()
