"""A webhook, signed as Standard Webhooks describes: HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from typing import Final

from infertool.alerts.engine import Notification
from infertool.alerts.sinks.http import Poster
from infertool.alerts.sinks.port import SinkError, document, iso
from infertool.errors import SettingsError
from infertool.secret import Secret
from infertool.text import json_text

_PREFIX: Final = "whsec_"
# Bytes of a key, as the specification says.
_LENGTHS: Final = range(24, 65)


class WebhookSink:
    """Posts each notification to `url`. The secret is read again for each request."""

    name: Final = "webhook"
    repeats: Final = False

    def __init__(self, url: str, secret: Secret, timeout_s: float, clock: Callable[[], float] = time.time) -> None:
        _key(secret)
        self._poster = Poster(url, timeout_s)
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


def signed(message_id: str, timestamp: int, body: bytes, key: bytes) -> dict[str, str]:
    """Return the headers of a message."""
    digest = hmac.new(key, b"%s.%d.%s" % (message_id.encode(), timestamp, body), hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _key(secret: Secret) -> bytes:
    text = secret.reveal()
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _LENGTHS:
        what = "alerting.webhook_url needs alerting.webhook_secret" if not text else "alerting.webhook_secret is no key"
        advice = f"write {_PREFIX} and the base64 of 24 to 64 random bytes"
        raise SettingsError(what, key="alerting.webhook_secret", advice=advice)
    return key
