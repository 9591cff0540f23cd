"""The sink port: takes notifications, one sink at a time, on the thread of its delivery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from infertool.alerts.engine import Notification
from infertool.errors import InfertoolError
from infertool.text.times import iso


class SinkError(InfertoolError):
    """A notification was not taken. The text holds no secret."""


class Sink(Protocol):
    """A way out. It may block up to its own time limit."""

    @property
    def name(self) -> str:
        """The sink's name in rules."""

    @property
    def repeats(self) -> bool:
        """True if it must be told again and again of what still fires."""

    def send(self, notifications: Sequence[Notification], key: str) -> None:
        """Tell. `key` is the same when it is tried again. Raises `SinkError`."""

    def close(self) -> None:
        """Give up connections. `send` may be in progress."""


def document(notification: Notification) -> dict[str, Any]:
    """Return what Phoenix, the webhook and the command get."""
    return {
        "rule": notification.rule,
        "state": notification.state,
        "severity": notification.severity,
        "value": notification.value,
        "threshold": notification.threshold,
        "since": iso(notification.since),
        "summary": notification.summary,
        "labels": dict(notification.labels),
    }
