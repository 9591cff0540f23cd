"""The connections of a load run, by side: broker and Phoenix."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from infertool.net.connection_state import ConnectionEvent, ConnectionState


@dataclass(slots=True)
class Sides:
    """The state of the connections to broker and Phoenix. With several connections, that of the newest change."""

    up: dict[str, bool] = field(default_factory=dict)
    reconnects: Counter[str] = field(default_factory=Counter)

    def changed(self, side: str, event: ConnectionEvent) -> None:
        """Note a change."""
        # Counted when it is back: repeated attempts to connect are one loss.
        connected = event.state is ConnectionState.CONNECTED
        self.reconnects[side] += connected and event.epoch > 1
        self.up[side] = connected
