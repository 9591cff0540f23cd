"""Events to send: the built-in one, about 364 bytes of JSON."""

from __future__ import annotations

import random
import time
import uuid

import orjson

from infertool.message import BodyKind, Outgoing

_FEATURES = 8
_SOURCES = ("checkout", "search", "mobile", "partner-api")


def event(sequence: int, queue: str, rng: random.Random) -> tuple[str, Outgoing]:
    """Return an event's id and its message for `queue`, as a Java producer would send it: text, persistent."""
    event_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    request_id = f"req-{sequence:06d}"
    document = {
        "event_id": event_id,
        "request_id": request_id,
        "sent_at": time.time(),
        "source": rng.choice(_SOURCES),
        "features": [round(rng.gauss(0, 1), 6) for _ in range(_FEATURES)],
        "context": {"tenant": "acme", "region": "eu-central-1", "model_hint": "reference"},
    }
    headers = {"event_id": event_id, "correlation-id": request_id}
    return event_id, Outgoing(queue, orjson.dumps(document), BodyKind.TEXT, headers)
