"""Heartbeats, agreed by stomp.py's rule and kept by our own two threads.

stomp.py's own machinery is not used: it takes a broker for dead after 1.5 intervals, and ActiveMQ may be silent for
2.0; it counts whole frames as signs of life, so a large message on a slow line looks like silence; and one thread both
sends and watches, so a peer that stops reading blocks the write and is never noticed. Here the writer sends a beat
whenever it has written nothing for half an interval, and the reader, which never blocks, watches for bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stomp.utils import calculate_heartbeats

BEAT = b"\n"
# ActiveMQ skips a beat whenever it wrote anything since its last check: up to 2.0 intervals of silence are healthy.
_SILENCE_SCALE = 2.5
_BEAT_SCALE = 0.5


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What was agreed: write at least every `beat_s` (None: never), hear something within `silence_s` (may be inf)."""

    beat_s: float | None = None
    silence_s: float = math.inf


def wish(heartbeat_s: float) -> str:
    """Return the heart-beat header of CONNECT."""
    return f"{_milliseconds(heartbeat_s)},{_milliseconds(heartbeat_s)}"


def agree(heartbeat_s: float, answer: str) -> Heartbeat:
    """Return what our wish and the broker's `answer` (heart-beat header of CONNECTED) amount to.

    Source: STOMP 1.2, "Heart-beating". Raises ValueError for a malformed answer.
    """
    ours = _milliseconds(heartbeat_s)
    send, receive = calculate_heartbeats(answer.replace(" ", "").split(","), (ours, ours))
    return Heartbeat(
        beat_s=send / 1000 * _BEAT_SCALE if send else None,
        silence_s=receive / 1000 * _SILENCE_SCALE if receive else math.inf,
    )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
