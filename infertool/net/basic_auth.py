"""The header Authorization with a user and a password (RFC 7617), in UTF-8."""

from __future__ import annotations

import base64
from urllib.parse import unquote


def token(user: str, password: str) -> str:
    """Return what follows `Basic` in the header."""
    return base64.b64encode(f"{user}:{password}".encode("utf-8", "surrogateescape")).decode()


def header(user: str, password: str) -> dict[str, str]:
    """Return the header."""
    return {"authorization": f"Basic {token(user, password)}"}


def in_url(part: str) -> tuple[str, str]:
    """Return user and password of the user part of a URL."""
    user, _, password = part.partition(":")
    return unquote(user), unquote(password)
