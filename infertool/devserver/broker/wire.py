"""Frames for clients of any STOMP version, whatever the headers hold."""

from __future__ import annotations

from collections.abc import Mapping

from infertool.brokers.stomp import frames

# STOMP 1.0 and CONNECTED have no escapes: what would end a line or a name is blanked, so that the frame stays whole.
_BLANKED = str.maketrans("\n\r", "  ")


def encode(command: str, headers: Mapping[str, str], body: bytes = b"", *, version: str) -> bytes:
    """Return the frame's bytes; never fails."""
    if version == "1.0" or command == "CONNECTED":
        headers = {_blanked(key).replace(":", "_"): _blanked(value) for key, value in headers.items()}
    return frames.encode(command, headers, body, version=version)


def header_lines(headers: Mapping[str, str], *, version: str) -> bytes:
    """Return the header lines alone."""
    return encode("", headers, version=version)[1:-2]


def _blanked(text: str) -> str:
    return text.translate(_BLANKED)
