"""Which traces are recorded: OTEL_TRACES_SAMPLER and its argument, as OpenTelemetry's SDK defines them.

The decision is made before anything else is done for an event, so it costs little where the answer is no. It depends on
the trace id as the SDK's does: programs with the same share record the same traces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from infertool.telemetry.trace_context import TraceContext

_DEFAULT: Final = "parentbased_always_on"
_SHARES: Final[Mapping[str, float | None]] = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}
_PARENT_BASED: Final = "parentbased_"
_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Sampler:
    """Records a `share` of traces; with `parent_based`, of those that others began it records what they record."""

    share: float = 1.0
    parent_based: bool = True

    def records(self, parent: TraceContext | None, trace_id: str) -> bool:
        """Return True if the trace `trace_id`, begun by `parent` or here, is recorded."""
        if parent is not None and self.parent_based:
            return parent.sampled
        bound: int = round(self.share * 2**_BITS)
        return int(trace_id[16:], 16) < bound


def of_environment(environ: Mapping[str, str], warn: Callable[[str], None]) -> Sampler:
    """Return the sampler that the environment names; `warn` is told of a name or share that is none."""
    given = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or _DEFAULT
    name = given.removeprefix(_PARENT_BASED)
    if name not in _SHARES:
        warn(f"OTEL_TRACES_SAMPLER is {given!r}, which infertool does not know; {_DEFAULT} takes its place")
        given, name = _DEFAULT, "always_on"
    share = _SHARES[name]
    return Sampler(_argument(environ, warn) if share is None else share, given.startswith(_PARENT_BASED))


def _argument(environ: Mapping[str, str], warn: Callable[[str], None]) -> float:
    text = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    try:
        share = float(text or "1")
    except ValueError:
        share = math.nan
    if 0 <= share <= 1:
        return share
    warn(f"OTEL_TRACES_SAMPLER_ARG is {text!r}, and must be a share from 0 to 1; 1 takes its place")
    return 1.0
