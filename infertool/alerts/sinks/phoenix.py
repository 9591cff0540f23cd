"""The event `alert` on the service topic of Phoenix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from infertool.alerts.engine import Notification
from infertool.alerts.sinks.port import document
from infertool.text import json_text

EVENT: Final = "alert"

# Publishes an encoded payload under an event id. It may block, and raises `SinkError`.
Push = Callable[[str, bytes], None]


class PhoenixSink:
    """Pushes each notification by `push`, which the application gives."""

    name: Final = "phoenix"
    repeats: Final = False

    def __init__(self, push: Push, close: Callable[[], None] = lambda: None) -> None:
        self._push = push
        self._close = close

    def send(self, notifications: Sequence[Notification], key: str) -> None:
        """Push. Raises `SinkError`."""
        for notification in notifications:
            self._push(key, json_text.dumps({"event_id": key, **document(notification)}))

    def close(self) -> None:
        """Disconnect."""
        self._close()
