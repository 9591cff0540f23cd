"""A string that does not print itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

MASK = "********"


@dataclass(frozen=True, slots=True)
class Secret:
    """A password or token. `repr`, `str` and formatting show a mask; `reveal()` is the only way to the text.

    With `_read` it stands in a file: `reveal()` reads it again, so that a rotated one is used without a restart.
    """

    _text: str = field(default="", repr=False)
    _read: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    def reveal(self) -> str:
        """Return the secret itself, for the wire only. Raises `SettingsError` if its file cannot be used now."""
        return self._read() if self._read else self._text

    def fixed(self) -> Secret:
        """Return the secret as it is now, for one connection or request. Raises as `reveal`."""
        return Secret(self.reveal()) if self._read else self

    def __bool__(self) -> bool:
        return bool(self._text)

    def __str__(self) -> str:
        return MASK if self._text else ""

    def __repr__(self) -> str:
        return f"Secret({str(self)!r})"


_TELLING = re.compile(r"token|pass|pwd|secret|key|auth|jwt|cred|sig", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
# A "?" or "#" that comes before an "@" without a "=" between them belongs to a password, not to a query.
_QUERY = re.compile(r"[?#](?=[^@]*=|[^@]*\Z).*", re.DOTALL)
_NAME = re.compile(r"([^=?#]*)=")
_USER = r"[^\s@,/?#]+@"
_HOST = r"(?:\[[^\s@\[\],/?#]*\]|[^\s@:,/?#\[\]]*)(?::\d*)?"
_WELL_FORMED = re.compile(rf"(?:{_USER}{_HOST}(?:,(?:{_USER})?{_HOST})*|{_HOST}(?:,{_HOST})*)(?:/[^@]*)?")


def is_telling(name: str) -> bool:
    """Say whether a parameter of that name is likely to hold a secret: token, password, api_key and the like."""
    return bool(_TELLING.search(name))


def mask_url(url: str) -> str:
    """Return `url` with passwords and tokens masked, fit for logs and errors.

    Each host of several may have a user part: its password is masked, or all of it when there is no password, for
    then it may be a token. So is the value of a query parameter with a telling name. A URL that is not well-formed,
    because a password was not percent-encoded or the host was left out, is masked from the first colon to the last @.
    """
    scheme = match[0] if (match := _SCHEME.match(url)) else ""
    rest = url[len(scheme) :]
    query = match[0] if (match := _QUERY.search(rest)) else ""
    return scheme + _mask_base(rest[: len(rest) - len(query)]) + "&".join(map(_mask_pair, query.split("&")))


def mask_spec(spec: str) -> str:
    """Return what names a model, which may be a URL, with passwords and tokens masked."""
    return mask_url(spec) if "://" in spec else spec


def _mask_base(base: str) -> str:
    if _WELL_FORMED.fullmatch(base):
        return re.sub(_USER, lambda match: _mask_user(match[0][:-1]) + "@", base)
    user, at, host = base.rpartition("@")
    return _mask_user(user) + at + host if at else _mask_user(base)


def _mask_user(user: str) -> str:
    name, _, password = user.partition(":")
    return f"{name}:{MASK}" if password else MASK


def _mask_pair(pair: str) -> str:
    telling = (match.end() for match in _NAME.finditer(pair) if is_telling(unquote(match[1])))
    end = next(telling, None)
    return pair if end is None else pair[:end] + MASK
