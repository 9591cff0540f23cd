"""What RabbitMQ writes on a message that it dead-letters: `x-death`, and the first death in headers of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from infertool.message import BrokerDeath

_LIST, _QUEUE, _REASON, _EXCHANGE = "x-death", "x-first-death-queue", "x-first-death-reason", "x-first-death-exchange"
MARKS: Final = frozenset({_LIST, _QUEUE, _REASON, _EXCHANGE})


def of(headers: Mapping[str, Any]) -> BrokerDeath | None:
    """Return what these headers tell of the message's first death; None if they tell of none."""
    if _LIST not in headers and _QUEUE not in headers:
        return None
    return BrokerDeath(str(headers.get(_QUEUE, "")), str(headers.get(_REASON, "")), complete=headers.keys() >= MARKS)
