"""What is recorded of one event on its way: ids and times, from which its spans are made when it is settled."""

from __future__ import annotations

import time

from msgspec import Struct, field

from infertool.telemetry.trace_context import TraceContext


class Call(Struct, frozen=True, gc=False):
    """A call of the model. Times are monotonic, in seconds; `batch` is the call of the batch it was part of."""

    started: float
    seconds: float
    error_type: str
    error: str
    batch: TraceContext | None


class Trace(Struct, eq=False):
    """An event that belongs to a recorded trace. Times are monotonic, in seconds; 0 for what has not happened.

    `context` is its processing, `sent` its publication. `parent` is what the producer wrote; `first_try` is the try
    that a replay follows. `tried` is when its latest try began, `sending` when that had its outcome.
    `replied_to` is where its reply went.
    """

    context: TraceContext
    sent: TraceContext
    parent: TraceContext | None = None
    first_try: TraceContext | None = None
    began: float = field(default_factory=time.monotonic)
    tried: float = 0.0
    sending: float = 0.0
    confirmed: float = 0.0
    replied_to: str = ""
    calls: list[Call] = field(default_factory=list)
    to_wall_s: float = field(default_factory=lambda: time.time() - time.monotonic())

    def wall_ns(self, at: float) -> int:
        """Return a monotonic time as wall-clock nanoseconds."""
        return round((at + self.to_wall_s) * 1e9)
