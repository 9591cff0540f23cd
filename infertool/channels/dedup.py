"""Deduplication of live events against a recording."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from infertool.channels.event import ChannelEvent, encode

# Maximum of remembered events: only the end of a recording overlaps with live events.
_REMEMBERED = 100_000
_SUCCEEDED = "SUCCESS"
_RESULT = "new_result"

_Key = tuple[str, ...]


class Dedup:
    """Remembers the last events of a recording: results by event id, failures by event id and time.

    A result that was pushed or computed again is a duplicate, and so is a failure that was reported again. A new
    failure of the same event is not.
    """

    def __init__(self) -> None:
        self._known: dict[_Key, None] = {}

    def note(self, events: Iterable[ChannelEvent]) -> None:
        """Remember events of the recording."""
        for key in map(_key, events):
            if key:
                self._known.pop(key, None)
                self._known[key] = None
        for key in list(self._known)[:-_REMEMBERED]:
            del self._known[key]

    def without(self, events: Sequence[ChannelEvent]) -> Sequence[ChannelEvent]:
        """Return the events that are not in the recording. Events without `event_id` are always returned."""
        if not self._known:
            return events
        return [event for event in events if _key(event) not in self._known]


def _key(event: ChannelEvent) -> _Key | None:
    payload = event.payload
    if not isinstance(payload, dict) or not isinstance(event_id := payload.get("event_id"), str):
        return None
    if payload.get("status", _SUCCEEDED if event.event == _RESULT else None) == _SUCCEEDED:
        return event.event, event_id
    return event.event, event_id, _occasion(payload)


def _occasion(payload: Mapping[str, Any]) -> str:
    """Return what distinguishes failures of one event: the time, or the whole payload if it has none."""
    failed_at = payload.get("failed_at")
    if isinstance(failed_at, str):
        return failed_at
    # A server may put the keys into another order.
    return orjson.dumps(orjson.loads(encode(payload)), option=orjson.OPT_SORT_KEYS).decode()
