"""W3C trace context: `traceparent`, read and written. It needs no OpenTelemetry.

An event brings it as a header, else as a field of its payload. Anything that is no `traceparent` of version 00 is
ignored: a trace must never fail an event.
"""

from __future__ import annotations

import re
from random import Random
from typing import Final

from msgspec import Struct

# The name of the header, and of the payload's field.
TRACEPARENT: Final = "traceparent"

# Version, trace id, span id and flags.
LENGTH: Final = 55
SAMPLED: Final = 1

_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_random = Random()  # noqa: S311  (seeded by the system; ids are no secrets)


class TraceContext(Struct, frozen=True, gc=False):
    """A span as others name it: its trace and itself, in lower-case hex, and its flags."""

    trace_id: str
    span_id: str
    flags: int = SAMPLED

    @property
    def sampled(self) -> bool:
        """Whether the span is recorded."""
        return bool(self.flags & SAMPLED)

    def __str__(self) -> str:
        """Return its `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse(value: object) -> TraceContext | None:
    """Return the context that a `traceparent` names; None for any other value, of any type and length."""
    if not isinstance(value, str) or len(value) != LENGTH:
        return None
    found = _FORM.fullmatch(value)
    if found is None or found[1] == _NO_TRACE or found[2] == _NO_SPAN:
        return None
    return TraceContext(found[1], found[2], int(found[3], 16))


def new(*, sampled: bool = True) -> TraceContext:
    """Return the context of the first span of a new trace."""
    return TraceContext(new_trace_id(), new_span_id(), SAMPLED if sampled else 0)


def new_trace_id() -> str:
    """Return a random trace id."""
    return f"{_random.getrandbits(128) or 1:032x}"


def new_span_id() -> str:
    """Return a random span id."""
    return f"{_random.getrandbits(64) or 1:016x}"


def trace_id_of(document: object) -> str:
    """Return the trace id of a published document; empty if it has none."""
    context = parse(document.get(TRACEPARENT)) if isinstance(document, dict) else None
    return context.trace_id if context else ""
