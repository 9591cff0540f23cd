"""Headers of the events that are sent: ids and times, the user's headers, a priority drawn at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import msgspec

from infertool import brokers
from infertool.brokers.headers import CORRELATION_ID, PRIORITY, from_options, split
from infertool.errors import UsageError
from infertool.load import payloads
from infertool.load.tally import RunClock
from infertool.load.traces import NewTraces
from infertool.message import BodyKind, Outgoing
from infertool.settings.broker import BrokerSettings
from infertool.telemetry.trace_context import TRACEPARENT

# Headers with a value of their own for each event.
OWN: Final = ("event_id", CORRELATION_ID, "sent_at", "intended_at")
_TAKEN: Final = frozenset({*OWN, PRIORITY, TRACEPARENT})
_LEVELS: Final = tuple(map(str, range(10)))
_TOLERANCE: Final = 1e-6


def priorities(text: str, rng: random.Random) -> Callable[[], str]:
    """Return a function that draws a priority from `high:9=0.1,low:4=0.9`. The names are ignored. Raises UsageError."""
    levels, shares = zip(*(_share(part, text) for part in text.split(",")), strict=True)
    if abs(sum(shares) - 1) > _TOLERANCE:
        raise _wrong(text, f"its shares make {sum(shares):g}, not 1")
    bounds = list(accumulate(shares))
    return lambda: rng.choices(levels, cum_weights=bounds)[0]


def _share(part: str, text: str) -> tuple[str, float]:
    named, _, share_text = part.partition("=")
    level = named.rpartition(":")[2].strip()
    if level not in _LEVELS:
        raise _wrong(text, f"{level!r} is no priority from {_LEVELS[0]} to {_LEVELS[-1]}")
    try:
        share = float(share_text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise _wrong(text, f"{share_text!r} is no share")
    return level, share


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"--priority {text!r}: {why}", advice="write for example high:9=0.1,low:4=0.9")


@dataclass(frozen=True, slots=True)
class EnvelopeOptions:
    """Destination, body kind and headers of the events. `broker_url` is the broker they are sent to.

    With `traced` each event begins a trace, and that share of them is recorded.
    """

    queue: str
    kind: BodyKind = BodyKind.TEXT
    persistent: bool = True
    headers: tuple[str, ...] = ()
    priority: str | None = None
    traced: float | None = None
    broker_url: str = BrokerSettings().url


class Envelope:
    """Makes the headers of events. Raises UsageError for invalid options."""

    def __init__(self, options: EnvelopeOptions, seed: str) -> None:
        rng = random.Random(f"headers {seed}")  # noqa: S311  # sample data
        given = from_options(options.headers, brokers.conventions(options.broker_url), _TAKEN, "loadgen")
        headers, properties = split(given)
        properties = msgspec.structs.replace(properties, persistent=options.persistent)
        self.template = Outgoing(options.queue, b"", options.kind, headers, properties)
        self._priority = None if options.priority is None else priorities(options.priority, rng)
        self._traces = None if options.traced is None else NewTraces(options.traced)
        self.variable_headers = list(OWN)
        if self._priority:
            self.variable_headers.append(PRIORITY)
        if self._traces:
            self.variable_headers.append(TRACEPARENT)

    def values(self, run_clock: RunClock, number: int, due: float, sent_at: str) -> Sequence[str]:
        """Return the values of `variable_headers`; `sent_at` is wall-clock time."""
        values = [run_clock.event_id(number, due), payloads.request_id(number), sent_at, f"{run_clock.wall + due:.6f}"]
        if self._priority:
            values.append(self._priority())
        if self._traces:
            values.append(self._traces.make())  # the last one: see `Sender`
        return values
