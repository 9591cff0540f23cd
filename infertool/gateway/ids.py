"""Ids of requests: short, fit for a URL, in the order of time, and with the name of the gateway that holds the request.

`0mfz3k2a1x7c0q9wd-a`: nine digits of milliseconds since the epoch, eight random ones, and the gateway's name.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Final

from infertool.errors import SettingsError

# Crockford's: without those that are read as others.
_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_TIME_DIGITS, _RANDOM_DIGITS = 9, 8
_RANDOM_BYTES: Final = 5
# The system's source lets other threads run meanwhile, which takes a hundred times as long as the rest.
_DRAWN_AT_ONCE: Final = 256
_PAIRS: Final = [first + second for first in _DIGITS for second in _DIGITS]
_TOKEN: Final = re.compile(f"[{_DIGITS}]{{{_TIME_DIGITS + _RANDOM_DIGITS}}}")
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,30}[a-z0-9])?")


def draw_name() -> str:
    """Return a name for a gateway that was given none."""
    return _text(secrets.randbits(20), 4)


def is_name(text: str) -> bool:
    """Return True if a gateway can have this name."""
    return _NAME.fullmatch(text) is not None


class Ids:
    """Makes the ids of one gateway, for one thread. Raises `SettingsError` for a name that cannot be part of one."""

    def __init__(self, name: str) -> None:
        if not is_name(name):
            raise SettingsError(
                f"{name!r} cannot be a gateway's name: use up to 32 of a-z, 0-9, dot and hyphen", key="gateway.name"
            )
        self.name = name
        self._drawn = b""
        self._used = 0
        # The digits of this second, or nearly that: all of the time but the last two.
        self._second = 0
        self._digits = ""

    def new(self) -> str:
        """Return a new id."""
        if self._used == len(self._drawn):
            self._drawn, self._used = secrets.token_bytes(_DRAWN_AT_ONCE * _RANDOM_BYTES), 0
        drawn = int.from_bytes(self._drawn[self._used : self._used + _RANDOM_BYTES], "big")
        self._used += _RANDOM_BYTES
        now_ms = time.time_ns() // 1_000_000
        pairs = _PAIRS
        if (second := now_ms >> 10) != self._second:
            self._second, self._digits = second, _text(second, _TIME_DIGITS - 2)
        random = pairs[drawn >> 30] + pairs[drawn >> 20 & 1023] + pairs[drawn >> 10 & 1023] + pairs[drawn & 1023]
        return f"{self._digits}{pairs[now_ms & 1023]}{random}-{self.name}"


def owner_of(request_id: str) -> str | None:
    """Return the name of the gateway that made an id; None for what is no id."""
    token, _, name = request_id.partition("-")
    return name if _TOKEN.fullmatch(token) and _NAME.fullmatch(name) else None


def made_ms(request_id: str) -> int:
    """Return when an id was made, in milliseconds since the epoch."""
    value = 0
    for digit in request_id[:_TIME_DIGITS]:
        value = value * len(_DIGITS) + _VALUES[digit]
    return value


def _text(value: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        value, digit = divmod(value, len(_DIGITS))
        text = _DIGITS[digit] + text
    return text
