"""Values of a record's headers, which are bytes or nothing, as the texts with types that the layers above have."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from infertool.brokers.header_types import BYTES, NULL, from_text
from infertool.text.sanitize import wire_bytes

Pair = tuple[str, bytes | None]

# Types that a header of a record has by itself.
_NATIVE: Final = frozenset({BYTES, NULL})
# A correlation id may be any bytes (of Spring: a UUID's 16); what is no UTF-8 is written like this, and so is what
# begins so.
_CODED: Final = "base64:"


def first_of_each(pairs: Sequence[Pair]) -> dict[str, bytes | None]:
    """Return the first value of each name."""
    first: dict[str, bytes | None] = {}
    for name, value in pairs:
        first.setdefault(name, value)
    return first


def value_of(pairs: Sequence[Pair], name: str) -> bytes | None:
    """Return the first value of a name, None where there is none."""
    return next((value for each, value in pairs if each == name), None)


def read(value: bytes | None) -> tuple[str, str]:
    """Return a value as text, with the type that the text does not tell."""
    if value is None:
        return "", NULL
    try:
        return value.decode(), ""
    except UnicodeDecodeError:
        return base64.b64encode(value).decode(), BYTES


def written(text: str, tag: str) -> bytes | None:
    """Return the value that `read` read. Raises HeaderTypeError."""
    if tag in _NATIVE:
        value: bytes | None = from_text(text, tag)
        return value
    if tag:
        from_text(text, tag)  # raises for what is no such value
    return wire_bytes(text)


def shown(value: bytes | None) -> str | bytes | None:
    """Return a value as JSON has it: text where it is text."""
    text, tag = read(value)
    return text if not tag else value


def text_of(value: bytes | None) -> str | None:
    """Return a value that is UTF-8, else None."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def correlation(value: bytes | None) -> str | None:
    """Return a correlation id as text."""
    text = text_of(value)
    if value is None or (text is not None and not text.startswith(_CODED)):
        return text
    return _CODED + base64.b64encode(value).decode()


def correlation_bytes(text: str) -> bytes:
    """Return what `correlation` read."""
    if text.startswith(_CODED):
        try:
            return base64.b64decode(text[len(_CODED) :], validate=True)
        except binascii.Error:
            pass
    return wire_bytes(text)
