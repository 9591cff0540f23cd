"""Spans that have ended. `infertool.telemetry.otlp` exports them; nothing here imports OpenTelemetry.

A span is made whole, when it has ended: until then only its ids and times exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from importlib.util import find_spec
from typing import Final

from msgspec import Struct

from infertool.telemetry.trace_context import TraceContext

_PACKAGES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


class Kind(IntEnum):
    """The kind of a span, by OpenTelemetry's numbers."""

    INTERNAL = 0
    CLIENT = 2
    PRODUCER = 3
    CONSUMER = 4


class Span(Struct, frozen=True, gc=False):
    """A span that has ended. Times are wall-clock nanoseconds; `error` says why it failed, empty if it did not."""

    name: str
    kind: Kind
    context: TraceContext
    parent: TraceContext | None
    start_ns: int
    end_ns: int
    attributes: Mapping[str, str | int | float | bool]
    links: Sequence[TraceContext] = ()
    error: str = ""


def missing_package() -> str:
    """Return the name of a package that traces need and that is not installed; empty if all are. Imports none."""
    return next((package for package in _PACKAGES if not _is_installed(package)), "")


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):  # a part of its name is missing, or is no module
        return False
