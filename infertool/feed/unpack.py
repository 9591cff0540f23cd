"""Frames to arrivals. A push that holds many results becomes an arrival a result."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from infertool.feed.arrival import Arrival
from infertool.phoenix import batch
from infertool.phoenix.frames import Frame

_RESULT_EVENT = "new_result"


def arrivals(frames: Sequence[Frame], *, at: float, source: str = "") -> list[Arrival]:
    """Return what `frames` hold, in order. `new_results` that are no `{"results": [...]}` pass as they are."""
    unpacked: list[Arrival] = []
    for frame in frames:
        if batch.is_batch(frame):
            pairs = zip_longest(batch.documents(frame), batch.texts(frame), fillvalue=b"")
            unpacked += [Arrival(frame.topic, _RESULT_EVENT, result, at, source, text) for result, text in pairs]
        else:
            unpacked.append(Arrival(frame.topic, frame.event, frame.payload, at, source, frame.payload_text()))
    return unpacked
