"""The state of a supervised connection, and the event that reports a change of it."""

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
    """A change of a supervised connection.

    `epoch` counts its connections from 1. `reason` is text for people. `retry_in_s` is set while it waits for the next
    attempt.
    """

    state: ConnectionState
    address: str
    epoch: int
    reason: str = ""
    retry_in_s: float | None = None


OnConnection = Callable[[ConnectionEvent], None]
