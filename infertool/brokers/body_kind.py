"""Whether a body is text, where a broker does not say it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from infertool.message import BodyKind

# Looked up once: that of a member of an enum takes as long as the rest of a kind.
TEXT: Final = BodyKind.TEXT
BYTES: Final = BodyKind.BYTES

_TEXTS: Final = ("text/", "application/json", "application/xml")
_SUFFIXES: Final = ("+json", "+xml")


def concluded(content_type: str | None, body: bytes) -> BodyKind:
    """Return what a body is taken for, if no header says it."""
    if content_type:
        return _kind_of(content_type)
    if body.isascii():
        return TEXT
    try:
        body.decode()
    except UnicodeDecodeError:
        return BYTES
    return TEXT


@lru_cache(maxsize=256)
def _kind_of(content_type: str) -> BodyKind:
    main, _, parameters = content_type.lower().partition(";")
    main = main.strip()
    textual = main.startswith(_TEXTS) or main.endswith(_SUFFIXES) or "charset" in parameters
    return TEXT if textual else BYTES
