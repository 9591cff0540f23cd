"""What a supervised connection tells its owner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class LinkState(StrEnum):
    """The states of a supervised connection."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """A supervised connection changed. `reason` is for people; `retry_in_s` is set while it waits to try again."""

    state: LinkState
    address: str
    epoch: int
    reason: str = ""
    retry_in_s: float | None = None


OnLink = Callable[[LinkEvent], None]
