"""A webhook, signed as Standard Webhooks describes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from infertool.alerts.engine import Notification
from infertool.alerts.sinks.http import Poster
from infertool.alerts.sinks.port import SinkError, document
from infertool.errors import SettingsError
from infertool.net.standard_webhooks import key_of, signed
from infertool.secret import Secret
from infertool.text import json_text
from infertool.text.times import iso


class WebhookSink:
    """Posts each notification to `url`. The secret is read again for each request."""

    name: Final = "webhook"
    repeats: Final = False

    def __init__(self, url: str, secret: Secret, timeout_s: float, clock: Callable[[], float] = time.time) -> None:
        _key(secret)
        self._poster = Poster(url, timeout_s, setting="alerting.webhook_url", base=url)
        self._secret = secret
        self._clock = clock

    def send(self, notifications: Sequence[Notification], key: str) -> None:
        """Post `notifications`. Raises `SinkError`."""
        try:
            secret = _key(self._secret)
        except SettingsError as error:
            raise SinkError(str(error)) from None
        for notification in notifications:
            now = self._clock()
            body = json_text.dumps(
                {
                    "type": f"alert.{notification.state}",
                    "timestamp": iso(now),
                    "data": document(notification),
                }
            )
            self._poster.post(body, signed(key, int(now), body, secret))

    def close(self) -> None:
        """Close the connection."""
        self._poster.close()


def _key(secret: Secret) -> bytes:
    return key_of(secret, setting="alerting.webhook_secret", needed_by="alerting.webhook_url")
