"""Messages for tests of the pipeline's parts."""

from __future__ import annotations

import itertools

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
    **headers: str,
) -> Message:
    """Return a delivery as the STOMP adapter would make it; header names take `_` for `-`."""
    message_id = message_id or f"ID:test-{next(_numbers)}"
    named = {"destination": source, "message-id": message_id, **headers}
    if redelivered:
        named["redelivered"] = "true"
    return Message(message_id, source, named, body, kind, redelivered, epoch, token or f"t-{message_id}-{epoch}")
