"""The signature of Standard Webhooks (standardwebhooks.com): HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from infertool.errors import SettingsError
from infertool.secret import Secret

_PREFIX: Final = "whsec_"
# Bytes of a key, as the specification says.
_LENGTHS: Final = range(24, 65)


def signed(message_id: str, timestamp: int, body: bytes, key: bytes) -> dict[str, str]:
    """Return the headers of a message."""
    digest = hmac.new(key, b"%s.%d.%s" % (message_id.encode(), timestamp, body), hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def key_of(secret: Secret, *, setting: str, needed_by: str) -> bytes:
    """Return the key in `secret`, the value of `setting`, which the setting `needed_by` needs. Raises `SettingsError`.

    A secret that stands in a file is read again.
    """
    text = secret.reveal()
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _LENGTHS:
        what = f"{setting} is no key" if text else f"{needed_by} needs {setting}"
        raise SettingsError(what, key=setting, advice=f"write {_PREFIX} and the base64 of 24 to 64 random bytes")
    return key
