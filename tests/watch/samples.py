"""A bus whose clock stands still, and events for it."""

from __future__ import annotations

from typing import Any

from infertool.channels.event import ChannelEvent
from infertool.watch.bus import Bus
from infertool.watch.state import State

# 2026-11-25 03:00:00 UTC
NOW = 1_795_575_600.0


class Still:
    """A source without events, whose clock stands still."""

    def start(self, bus: Bus) -> None:
        pass

    def now(self) -> float:
        return NOW

    def stop(self, timeout_s: float) -> None:
        pass


def bus(name: str = "production", *, keep: int = 1_000, options: tuple[str, ...] = (), trace_url: str = "") -> Bus:
    return Bus(State(name, keep), Still(), options=options, trace_url=trace_url)


def result(number: int, *, ago: float = 0.0, **fields: Any) -> ChannelEvent:
    name = f"req-{number:04d}"
    at = NOW - ago
    payload = {
        "event_id": f"e-{number}", "request_id": name, "status": "SUCCESS", "attempts": 1,
        "prediction": {"class": "ABC"[number % 3], "confidence": number * 37 % 100 / 100},
        "processing_ms": 100.0 + number * 53 % 400, "received_at": at - 0.5,
        "original_payload": {"request_id": name, "features": [number, 0.25]}, **fields,
    }  # fmt: skip
    return ChannelEvent("public:results", "new_result", payload, at)


def failure(number: int, *, ago: float = 0.0, **fields: Any) -> ChannelEvent:
    payload = {
        "event_id": f"e-{number}", "request_id": f"req-{number:04d}", "status": "FAILED", "stage": "infer",
        "error_type": "InferenceError", "error": "the model said no", "attempts": 3, **fields,
    }  # fmt: skip
    return ChannelEvent("public:alerts", "inference_failed", payload, NOW - ago)


def alert(rule: str, state: str, *, ago: float = 0.0) -> ChannelEvent:
    payload = {"rule": rule, "state": state, "value": 7.5, "threshold": 5, "since": "2026-11-25T02:58:00Z"}
    return ChannelEvent("public:alerts", "alert", payload, NOW - ago)
