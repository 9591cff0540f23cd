"""A receiver of traces over OTLP/HTTP: it keeps the spans, or answers as a broken one does."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.running import LONG

Manner = Literal["takes", "discards", "hangs", "fails"]
KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}


@dataclass(frozen=True)
class Received:
    """A span as it came. Ids are hex; `links` are span ids with their trace ids."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent: str
    attributes: dict[str, Any]
    links: set[tuple[str, str]]
    failed: bool
    start_ns: int
    end_ns: int
    service: str


class Receiver:
    """Listens on a free port of this machine until it is closed."""

    def __init__(self, manner: Manner = "takes") -> None:
        self.spans: list[Received] = []
        self.requests = 0
        self._changed = threading.Condition()
        self._manner = manner
        self._closed = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                self.send_response(receiver.take(self.path, body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def take(self, path: str, body: bytes) -> int:
        with self._changed:
            self.requests += 1
            self._changed.notify_all()
        if self._manner == "hangs":
            self._closed.wait(LONG)
        if self._manner == "discards":
            return 200
        if self._manner != "takes" or path != "/v1/traces":
            return 500
        spans = list(_spans(ExportTraceServiceRequest.FromString(body)))
        with self._changed:
            self.spans += spans
            self._changed.notify_all()
        return 200

    def wait(self, *names: str) -> list[Received]:
        """Wait until a span of each of these names has come; return all spans."""
        deadline = time.monotonic() + LONG
        with self._changed:
            while not {span.name for span in self.spans} >= set(names):
                assert self._changed.wait(deadline - time.monotonic()), (names, self.spans)
            return list(self.spans)

    def of(self, trace_id: str) -> dict[str, Received]:
        """Return the spans of a trace by the first word of their names; each comes once."""
        found = [span for span in self.spans if span.trace_id == trace_id]
        named = {span.name.split(" ")[0]: span for span in found}
        assert len(named) == len(found), found
        return named

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def receiver(manner: Manner = "takes") -> Iterator[Receiver]:
    opened = Receiver(manner)
    try:
        yield opened
    finally:
        opened.close()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for resource_spans in request.resource_spans:
        service = _attributes(resource_spans.resource.attributes).get("service.name", "")
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield Received(
                    span.name,
                    KINDS[span.kind],
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    _attributes(span.attributes),
                    {(link.trace_id.hex(), link.span_id.hex()) for link in span.links},
                    span.status.code == 2,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    service,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
