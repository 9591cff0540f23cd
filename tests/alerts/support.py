"""What tests of rules share."""

from __future__ import annotations

from typing import Any

from infertool.telemetry.stats_document import DeadLetterStats, ModelStats, QueueStats, StatsDocument


def document(**changes: Any) -> StatsDocument:
    """Return a document of a consumer that has nothing to do."""
    return StatsDocument(
        **{
            "time": 1_700_000_000.0,
            "started": 1_699_999_000.0,
            "uptime_s": 1_000.0,
            "version": "1.0",
            "consumer": "c1",
            "queue": QueueStats(name="ai.events.raw"),
            "dlq": DeadLetterStats(name="ai.events.dlq"),
            "model": ModelStats(name="sim:"),
            **changes,
        }
    )
