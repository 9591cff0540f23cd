"""A string that does not print itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

MASK = "********"


@dataclass(frozen=True, slots=True)
class Secret:
    """A password or token. `repr`, `str` and formatting show a mask; `reveal()` is the only way to the text."""

    _text: str = field(default="", repr=False)

    def reveal(self) -> str:
        """Return the secret itself, for the wire only."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __str__(self) -> str:
        return MASK if self._text else ""

    def __repr__(self) -> str:
        return f"Secret({str(self)!r})"


def mask_url(url: str) -> str:
    """Return `url` with its user part's password and any token in its query masked, fit for logs and errors."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    hosts = []
    for host in rest.split(","):
        user, at, address = host.rpartition("@")
        if at and ":" in user:
            user = f"{user.partition(':')[0]}:{MASK}"
        hosts.append(f"{user}{at}{address}")
    return _mask_query(f"{scheme}://{','.join(hosts)}")


def _mask_query(url: str) -> str:
    parts = urlsplit(url)
    if not parts.query:
        return url
    pairs = (pair.partition("=") for pair in parts.query.split("&"))
    query = "&".join(
        f"{key}={MASK}" if key.lower() in {"token", "password", "api_key", "access_token"} else f"{key}{eq}{value}"
        for key, eq, value in pairs
    )
    return urlunsplit(parts._replace(query=query))
