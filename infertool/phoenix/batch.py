"""Many results in one push: `new_results` with `{"results": [document, ...]}`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from infertool import json_text
from infertool.phoenix.frames import Frame

EVENT: Final = "new_results"
_HEAD, _TAIL = b'{"results":[', b"]}"
# Bytes that a batch adds to its documents, and to each of them.
FRAME_BYTES: Final = len(_HEAD + _TAIL)
COMMA_BYTES: Final = 1


def join(documents: Sequence[bytes]) -> bytes:
    """Return the payload that holds `documents`, which are encoded JSON objects."""
    return b"%b%b%b" % (_HEAD, b",".join(documents), _TAIL)


def is_batch(frame: Frame) -> bool:
    """Tell whether a broadcast is a batch. `new_results` with any other payload is none."""
    payload = frame.payload
    return frame.event == EVENT and isinstance(payload, dict) and isinstance(payload.get("results"), list)


def texts(frame: Frame) -> list[bytes]:
    """Return the documents of a batch as they were written; none where only their values are known."""
    text = frame.payload_text()
    return json_text.raw_elements(json_text.raw_members(text)["results"]) if text else []


def documents(frame: Frame) -> list[Any]:
    """Return the documents that a broadcast holds: those of a batch, else its payload."""
    return list(frame.payload["results"]) if is_batch(frame) else [frame.payload]
