"""The built-in event: about 360 bytes of JSON, as a gateway would send."""

from __future__ import annotations

import random
from typing import Final

import orjson

from infertool.load.template import Assignment

_FEATURES: Final = 8
# Drawing eight normal numbers an event would take half of the time an event may take, so they are drawn once.
_VECTORS: Final = 1024
_SOURCES: Final = (b'"checkout"', b'"search"', b'"mobile"', b'"partner-api"')
DOCUMENT: Final = orjson.dumps({
    "request_id": "",
    "source": "",
    "features": [0.0] * _FEATURES,
    "context": {"tenant": "acme", "region": "eu-central-1", "model_hint": "reference"},
    "text": "The parcel was delivered to the wrong address, and nobody answered the phone "
    "when I called to ask why it was not the one on the label.",
})  # fmt: skip


def request_id(number: int) -> str:
    """Return the request id of event `number`."""
    return f"req-{number:06d}"


def fields(rng: random.Random, *, single_features: bool) -> list[Assignment]:
    """Return what fills the event. With `single_features` each feature is a field of its own."""
    return [
        Assignment("request_id", lambda number: b'"req-%06d"' % number),
        Assignment("source", lambda _number: rng.choice(_SOURCES)),
        *(_single_features(rng) if single_features else [_features(rng)]),
    ]


def _single_features(rng: random.Random) -> list[Assignment]:
    return [Assignment(f"features[{at}]", lambda _number: b"%.6f" % rng.gauss(0, 1)) for at in range(_FEATURES)]


def _features(rng: random.Random) -> Assignment:
    vectors = [orjson.dumps([round(rng.gauss(0, 1), 6) for _ in range(_FEATURES)]) for _ in range(_VECTORS)]
    return Assignment("features", lambda _number: rng.choice(vectors))
