"""The message of a request, as consumers get it."""

from __future__ import annotations

from infertool import codec
from infertool.codec import JSON, Codec
from infertool.gateway.request import InferRequest
from infertool.message import BodyKind, Outgoing, Properties
from infertool.telemetry.trace_context import TRACEPARENT


def message(request: InferRequest, queue: str, priority: int | None = None) -> tuple[Outgoing, Codec]:
    """Return the message of a request to `queue`, and the codec of its body. It is not persistent."""
    used = codec.for_content_type(request.content_type) or JSON
    headers = {"event_id": request.id}
    if request.traceparent:
        headers[TRACEPARENT] = request.traceparent
    kind = BodyKind.TEXT if used.is_text else BodyKind.BYTES
    properties = Properties(content_type=request.content_type, priority=priority, persistent=False)
    return Outgoing(queue, request.body, kind, headers, properties), used
