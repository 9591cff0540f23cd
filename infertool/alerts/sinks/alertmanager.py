"""Alertmanager's API v2. What fires is sent again every minute, and ends by itself four minutes after the last time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from infertool.alerts.engine import Notification
from infertool.alerts.sinks.http import Poster
from infertool.text import json_text
from infertool.text.times import iso

# With less, one lost request would resolve an alert. Seconds.
_ENDS_AHEAD_S: Final = 240.0


class AlertmanagerSink:
    """The Alertmanager at `url`."""

    name: Final = "alertmanager"
    repeats: Final = True

    def __init__(self, url: str, timeout_s: float, clock: Callable[[], float] = time.time) -> None:
        base, _, query = url.partition("?")
        self._poster = Poster(
            f"{base.rstrip('/')}/api/v2/alerts{'?' if query else ''}{query}", timeout_s,
            setting="alerting.alertmanager_url", base=url,
        )  # fmt: skip
        self._clock = clock

    def send(self, notifications: Sequence[Notification], key: str) -> None:  # noqa: ARG002  (the labels are the key)
        """Post the alerts. Raises `SinkError`."""
        self._poster.post(json_text.dumps([self._alert(each) for each in notifications]))

    def close(self) -> None:
        """Close the connection."""
        self._poster.close()

    def _alert(self, notification: Notification) -> dict[str, Any]:
        firing = notification.state == "firing"
        measured = {"value": notification.value, "threshold": notification.threshold}
        alert: dict[str, Any] = {
            "labels": {**notification.labels, "alertname": notification.rule, "severity": notification.severity},
            "annotations": {
                "summary": notification.summary,
                **{name: f"{value:g}" for name, value in measured.items() if value is not None},
            },
            "endsAt": iso(self._clock() + _ENDS_AHEAD_S if firing else self._clock()),
        }
        if firing:
            # Of a resolved alert Alertmanager knows the start.
            alert["startsAt"] = iso(min(notification.since, self._clock()))
        return alert
