"""Frames to arrivals. A push that holds many results becomes an arrival a result."""

from __future__ import annotations

from collections.abc import Sequence

from infertool.feed.arrival import Arrival
from infertool.phoenix.frames import Frame

BATCH_EVENT = "new_results"
_RESULT_EVENT = "new_result"


def arrivals(frames: Sequence[Frame], *, at: float, source: str = "") -> list[Arrival]:
    """Return what `frames` hold, in order. `new_results` that are no `{"results": [...]}` pass as they are."""
    unpacked: list[Arrival] = []
    for frame in frames:
        results = _results(frame) if frame.event == BATCH_EVENT else None
        if results is None:
            unpacked.append(Arrival(frame.topic, frame.event, frame.payload, at, source))
        else:
            unpacked += [Arrival(frame.topic, _RESULT_EVENT, result, at, source) for result in results]
    return unpacked


def _results(frame: Frame) -> list[object] | None:
    results = frame.payload.get("results") if isinstance(frame.payload, dict) else None
    return results if isinstance(results, list) else None
