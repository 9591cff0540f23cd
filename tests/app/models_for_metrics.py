"""A model that takes batches, and has a version."""

from __future__ import annotations

from typing import Any


class Batched:
    """Answers each event with the number of events in its batch."""

    version = "2026.11"

    def predict_batch(self, payloads: list[Any]) -> list[Any]:
        """Return the size of the batch for each."""
        return [{"size": len(payloads)} for _ in payloads]

    def predict(self, payload: Any) -> Any:
        """Return 1."""
        return {"size": 1}
