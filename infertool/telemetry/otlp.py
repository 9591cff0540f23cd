"""The export of spans over OTLP/HTTP by OpenTelemetry's SDK. Import this only where traces are on.

Spans are given to the SDK whole, when they have ended: its own cost several times as much. Its batch thread exports
a third of the time at most: meanwhile it has the interpreter lock, which the program needs. Nothing here waits for it,
except `close`, for a bounded time.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export import SpanExporter as SdkExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from infertool.errors import SettingsError
from infertool.telemetry.sampling import of_environment
from infertool.telemetry.spans import Kind, Span
from infertool.telemetry.trace_context import TraceContext

# Spans that may wait for the export, where OTEL_BSP_MAX_QUEUE_SIZE says nothing else: as the SDK has it.
MOST_WAITING: Final = 2048
# Rest of the batch thread, in times of what an export took of the processor.
_REST: Final = 2.0


class SpanExporter:
    """Exports spans as `service`, unless the environment names another. Thread-safe.

    What cannot be exported is dropped: `on_dropped` gets the number. `warn` is told once why.
    """

    def __init__(self, service: str, *, warn: Callable[[str], None], on_dropped: Callable[[int], None]) -> None:
        """Start the batch thread. The endpoint is not tried. Raises `SettingsError` for variables without sense."""
        self.sampler = of_environment(os.environ, warn)
        self._warn = warn
        self._on_dropped = on_dropped
        self._lock = threading.Lock()
        given = os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", "")
        self._room = int(given) if given.isdecimal() else MOST_WAITING
        self._waiting = 0
        self._dropped = 0
        self._reason = ""
        self._warned = False
        self._closed = False
        self._reasons = _Reasons()
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        self._closing = threading.Event()
        throttled = _Throttled(OTLPSpanExporter(), _Conversion(resource), self._closing, self._exported)
        try:
            self._processor = BatchSpanProcessor(throttled)
        except ValueError as error:
            self._reasons.close()
            what = f"spans cannot be exported with these OTEL_BSP_ variables: {error}"
            raise SettingsError(what, key="telemetry.traces") from None

    def admits(self, count: int) -> bool:
        """Return True if there is room for `count` spans; else count them as dropped."""
        with self._lock:
            return self._fits(count)

    def export(self, spans: Sequence[Span]) -> None:
        """Queue spans. Never waits; those that have no room are dropped."""
        with self._lock:
            if not self._fits(len(spans)):
                return
            self._waiting += len(spans)
        for span in spans:
            self._processor.on_end(cast("ReadableSpan", _Pending(span)))

    def close(self, timeout_s: float) -> None:
        """Export what waits, for at most `timeout_s`; drop the rest."""
        self._closing.set()
        thread = threading.Thread(target=self._processor.shutdown, name="spans-close", daemon=True)
        thread.start()
        thread.join(timeout_s)
        with self._lock:
            left, self._waiting, self._closed = self._waiting, 0, True
        self._report(left, self._reasons.last or "the endpoint did not answer before the end")
        if not thread.is_alive():  # else it has more to log
            self._reasons.close()

    def _fits(self, count: int) -> bool:
        if self._waiting + count <= self._room and not self._closed:
            return True
        self._dropped += count
        self._reason = self._reason or "spans come faster than they can be exported"
        return False

    def _exported(self, count: int, *, succeeded: bool) -> None:
        with self._lock:
            if self._closed:
                return
            self._waiting -= count
        self._report(0 if succeeded else count, self._reasons.last or "the endpoint does not take them")

    def _report(self, count: int, reason: str) -> None:
        """Report `count` dropped spans, and those that had no room since the last report."""
        with self._lock:
            dropped, self._dropped = self._dropped + count, 0
            reason = reason if count else self._reason
            first = dropped > 0 and not self._warned
            self._warned = self._warned or first
        if dropped:
            self._on_dropped(dropped)
        if first:
            self._warn(f"traces are incomplete: {reason}; events go on, and dropped spans are counted (spans_dropped)")


class OnExported(Protocol):
    """Is told of the end of an export."""

    def __call__(self, count: int, *, succeeded: bool) -> None:
        """Take the number of spans."""


class _Pending:
    """A span in the SDK's queue, which looks at nothing of it but whether it is recorded."""

    __slots__ = ("span",)
    context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def __init__(self, span: Span) -> None:
        self.span = span


class _Throttled(SdkExporter):
    """Converts spans, has `inner` export them, reports the end of that, and rests. Runs on the batch thread."""

    def __init__(
        self, inner: SdkExporter, conversion: _Conversion, closing: threading.Event, on_exported: OnExported
    ) -> None:
        self._inner = inner
        self._readable = conversion.readable
        self._closing = closing
        self._on_exported = on_exported

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        before, succeeded = time.thread_time(), False
        try:
            result = self._inner.export([self._readable(cast("_Pending", each).span) for each in spans])
            succeeded = result is SpanExportResult.SUCCESS
        finally:
            self._on_exported(len(spans), succeeded=succeeded)
        self._closing.wait(_REST * (time.thread_time() - before))
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


class _Reasons(logging.Handler):
    """Takes what OpenTelemetry logs, which would be lines of its own on standard error; keeps the last one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        self._logger = logging.getLogger("opentelemetry")
        self._propagated = self._logger.propagate
        self._logger.addHandler(self)
        self._logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage().split("\n", 1)[0][:300]

    def close(self) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated
        super().close()


class _Conversion:
    """Turns spans into the SDK's."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._kinds = {kind: SpanKind(int(kind)) for kind in Kind}
        self._unset = Status(StatusCode.UNSET)
        self._scope = InstrumentationScope("infertool")

    def readable(self, span: Span) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            self._of(span.context, is_remote=False),
            self._of(span.parent, is_remote=True) if span.parent else None,
            self._resource,
            span.attributes,
            links=[Link(self._of(each, is_remote=True)) for each in span.links],
            kind=self._kinds[span.kind],
            status=Status(StatusCode.ERROR, span.error) if span.error else self._unset,
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )

    def _of(self, context: TraceContext, *, is_remote: bool) -> SpanContext:
        trace_id, span_id = int(context.trace_id, 16), int(context.span_id, 16)
        return SpanContext(trace_id, span_id, is_remote, TraceFlags(context.flags))
