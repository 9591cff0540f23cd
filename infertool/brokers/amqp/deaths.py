"""What RabbitMQ writes on a message that it dead-letters itself, by a queue's `x-dead-letter-exchange`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from infertool.message import BrokerDeath

_HISTORY: Final = "x-death"
_FIRST: Final = ("x-first-death-queue", "x-first-death-reason", "x-first-death-exchange")
# RabbitMQ 4 adds the latest death.
_LAST: Final = ("x-last-death-queue", "x-last-death-reason", "x-last-death-exchange")
MARKS: Final = frozenset({_HISTORY, *_FIRST, *_LAST})

_CAUSES: Final[Mapping[str, str]] = {
    "rejected": "rejected by a consumer",
    "expired": "expired before a consumer took it",
    "maxlen": "dropped by a full queue",
    "delivery_limit": "redelivered more often than the queue allows",
}


def of(headers: Mapping[str, Any]) -> BrokerDeath | None:
    """Return what `headers`, with values of AMQP's types, say of a death by the broker; None if they say nothing.

    The origin is the queue where the message died first: a later death is mostly one in a queue that delays a retry. A
    message whose marks do not agree with each other was not dead-lettered by RabbitMQ, and nothing of them is taken.
    """
    if MARKS.isdisjoint(headers):
        return None
    queue, reason, exchange = (headers.get(name) for name in _FIRST)
    deaths = list(_history(headers.get(_HISTORY)))
    first = next((death for death in deaths if (death["queue"], death["reason"]) == (queue, reason)), None)
    if first is None or not isinstance(exchange, str):
        return BrokerDeath("", "", complete=False)
    # The newest death stands first.
    at = deaths[0]["time"]
    return BrokerDeath(
        first["queue"], _cause(first, deaths[0]), complete=True, at_ms=int(at.timestamp() * 1000) if at else None
    )


def _cause(first: Mapping[str, Any], newest: Mapping[str, Any]) -> str:
    reason = str(first["reason"])
    cause = _CAUSES.get(reason, reason)
    if newest is first:
        return cause
    return f"{cause}; then {newest['reason']} in {newest['queue']}"


def _history(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the deaths that are told in full, the newest first."""
    for table in value if isinstance(value, list) else []:
        death = table if isinstance(table, dict) else {}
        queue, reason, count, at = (death.get(name) for name in ("queue", "reason", "count", "time"))
        if queue and isinstance(queue, str) and isinstance(reason, str) and isinstance(count, int) and count > 0:
            yield {"queue": queue, "reason": reason, "time": at if isinstance(at, datetime) else None}
