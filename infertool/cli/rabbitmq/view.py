"""What `infertool rabbitmq declare` shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from infertool.brokers.declaring import QueueState, Standing
from infertool.cli.common.deadletters import aligned


def table(states: Sequence[QueueState]) -> list[str]:
    """Return a table with a line for each queue, and for each difference and note."""
    return aligned([("queue", "state", "what"), *(row for state in states for row in _rows(state))])


def _rows(state: QueueState) -> Iterator[tuple[str, str, str]]:
    lines = [*map(str, state.differences), *state.notes]
    if state.standing is Standing.MISSING:
        lines.insert(0, f"would be made: {', '.join(state.spec.words())}")
    for number, line in enumerate(lines or [""]):
        yield (state.spec.name, state.standing.value, line) if number == 0 else (" ", " ", line)


def document(states: Sequence[QueueState]) -> dict[str, Any]:
    """Return the queues as JSON."""
    return {"queues": [_document(state) for state in states]}


def _document(state: QueueState) -> dict[str, Any]:
    return {
        "queue": state.spec.name,
        "state": state.standing.value,
        "created": state.created,
        "asked": {name: value for name, value in state.spec.asked().items() if value is not None},
        "differences": [
            {"argument": each.argument, "asked": each.wanted, "found": each.found} for each in state.differences
        ],
        "notes": list(state.notes),
    }
