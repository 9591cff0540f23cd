"""Messages for tests of the pipeline's parts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from infertool.brokers.headers import TextFormMessage
from infertool.message import BodyKind, Message

_numbers = itertools.count(1)


def message(
    body: bytes = b"{}",
    *,
    message_id: str | None = None,
    epoch: int = 1,
    redelivered: bool = False,
    kind: BodyKind = BodyKind.TEXT,
    source: str = "/queue/in",
    token: str | None = None,
    given: Mapping[str, str] | None = None,
    **headers: str,
) -> Message:
    """Return a delivery as the STOMP adapter would make it, with the headers that are given or named."""
    message_id = message_id or f"ID:test-{next(_numbers)}"
    named = {"destination": source, "message-id": message_id, **headers, **(given or {})}
    if redelivered:
        named["redelivered"] = "true"
    return text_message(message_id, source, named, body, kind, redelivered, epoch, token or f"t-{message_id}-{epoch}")


def text_message(
    message_id: str,
    source: str,
    texts: Mapping[str, str],
    body: bytes,
    kind: BodyKind,
    redelivered: bool,
    epoch: int,
    token: str,
) -> Message:
    """Return a delivery whose properties and headers are in the text form, as STOMP and archives have them."""
    return TextFormMessage(message_id, source, texts, body, kind, redelivered, epoch, token)
