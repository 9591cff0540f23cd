"""Frames for clients of any STOMP version, whatever the headers hold."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from infertool.brokers.stomp import frames

# STOMP 1.0 and CONNECTED have no escapes: what would end a line or a name is blanked, so that the frame stays whole.
_BLANKED = str.maketrans("\n\r", "  ")


def encode(command: str, headers: Mapping[str, str], body: bytes = b"", *, version: str) -> bytes:
    """Return the frame's bytes; never fails."""
    if version == "1.0" or command == "CONNECTED":
        headers = {_blanked(key).replace(":", "_"): _blanked(value) for key, value in headers.items()}
    return frames.encode(command, headers, body, version=version)


def header_lines(headers: Mapping[str, str], *, version: str) -> bytes:
    """Return the header lines alone, as UTF-8; what was not UTF-8 when it came goes out as it came."""
    # Once for each delivery: most values are words or numbers, which need no escapes, and keys are few.
    lines = [
        f"{_key(key, version)}:{value if value.isalnum() else _value(value, version)}\n"
        for key, value in headers.items()
    ]
    return "".join(lines).encode(errors="surrogateescape")


@lru_cache(maxsize=1024)
def _key(key: str, version: str) -> str:
    return _blanked(key).replace(":", "_") if version == "1.0" else frames.escape_value(key, version)


def _value(value: str, version: str) -> str:
    return _blanked(value) if version == "1.0" else frames.escape_value(value, version)


def _blanked(text: str) -> str:
    return text.translate(_BLANKED)
