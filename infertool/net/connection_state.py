"""What a supervised connection tells its owner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class ConnectionState(StrEnum):
    """The states of a supervised connection."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """A supervised connection changed. `reason` is for people; `retry_in_s` is set while it waits to try again."""

    state: ConnectionState
    address: str
    epoch: int
    reason: str = ""
    retry_in_s: float | None = None


OnConnection = Callable[[ConnectionEvent], None]
