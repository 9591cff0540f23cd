"""Traces that the load generator begins: `--trace SHARE`, and the span of each event that is recorded."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from infertool.errors import UsageError
from infertool.telemetry.spans import Kind, Span
from infertool.telemetry.trace_context import SAMPLED, TraceContext, parse

_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_WHOLE: Final = 100.0


def of_option(values: Sequence[str]) -> tuple[Path | None, float | None]:
    """Return what `--trace` names: a file of send times, and a share such as 1%. Raises UsageError."""
    shares = [match for match in map(_SHARE.fullmatch, values) if match]
    files = [Path(value) for value in values if not _SHARE.fullmatch(value)]
    if len(shares) > 1 or len(files) > 1:
        raise UsageError("--trace goes once with a file of send times, and once with a share such as 1%")
    share = float(shares[0][1]) / _WHOLE if shares else None
    if share is not None and share > 1:
        raise UsageError(f"--trace {shares[0][0]} is more than all events", advice="write a share up to 100%")
    return (files[0] if files else None), share


class NewTraces:
    """Makes the `traceparent` of events: each begins a trace, and a share of them is recorded. Nothing is seeded."""

    def __init__(self, share: float) -> None:
        self._share = share
        # Two runs must not share trace ids.
        self._random = random.Random()  # noqa: S311

    def make(self) -> str:
        """Return the next one."""
        draw = self._random
        flags = SAMPLED if draw.random() < self._share else 0
        return str(TraceContext(f"{draw.getrandbits(128) or 1:032x}", f"{draw.getrandbits(64) or 1:016x}", flags))


class Exporter(Protocol):
    """Takes spans that have ended. Never waits."""

    def export(self, spans: Sequence[Span]) -> None:
        """Queue spans."""

    def close(self, timeout_s: float) -> None:
        """Export what waits, for at most `timeout_s`."""


class SentSpans:
    """Exports `send QUEUE` for each recorded event that was sent: the root of its trace."""

    def __init__(self, exporter: Exporter, queue: str, system: str) -> None:
        self._export = exporter.export
        self.close: Callable[[float], None] = exporter.close
        self._name = f"send {queue}"
        self._attributes = {
            "messaging.system": system,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": queue,
        }

    def sent(self, traceparents: Sequence[str], began: float) -> None:
        """Take the events of a batch that was written from `began` (monotonic) to now."""
        contexts = [context for context in map(parse, traceparents) if context and context.sampled]
        if contexts:
            end_ns = time.time_ns()
            start_ns = end_ns - round((time.monotonic() - began) * 1e9)
            self._export([self._span(context, start_ns, end_ns) for context in contexts])

    def _span(self, context: TraceContext, start_ns: int, end_ns: int) -> Span:
        return Span(self._name, Kind.PRODUCER, context, None, start_ns, end_ns, self._attributes)
