"""The headers of an event: those all share, and those each has for itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from infertool.load import builtin, headers
from infertool.load.epoch import Epoch
from infertool.message import BodyKind, Outgoing


@dataclass(frozen=True, slots=True)
class EnvelopeOptions:
    """What the options say of all but the body."""

    queue: str
    kind: BodyKind = BodyKind.TEXT
    persistent: bool = True
    headers: tuple[str, ...] = ()
    priority: str | None = None
    traceparent: bool = False


class Envelope:
    """Stamps events. Raises UsageError for options that cannot work."""

    def __init__(self, options: EnvelopeOptions, seed: str) -> None:
        rng = random.Random(f"headers {seed}")  # noqa: S311  # sample data
        self.alike = Outgoing(
            options.queue, b"", options.kind, headers.user_headers(options.headers), options.persistent
        )
        self._priority = None if options.priority is None else headers.priorities(options.priority, rng)
        # Not of the seed: two runs must not share their traces.
        self._trace = random.Random() if options.traceparent else None  # noqa: S311
        self.varying = list(headers.OWN)
        if self._priority:
            self.varying.append("priority")
        if self._trace:
            self.varying.append("traceparent")

    def values(self, epoch: Epoch, number: int, due: float, sent_at: str) -> Sequence[str]:
        """Return the values of `varying`; `sent_at` is wall-clock time."""
        values = [epoch.event_id(number, due), builtin.request_id(number), sent_at, f"{epoch.wall + due:.6f}"]
        if self._priority:
            values.append(self._priority())
        if self._trace:
            values.append(f"00-{self._trace.getrandbits(128):032x}-{self._trace.getrandbits(64):016x}-01")
        return values
