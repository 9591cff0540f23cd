"""One request and its response, past ASGI: a body that is there is taken at once, a whole response is one write.

ASGI has a message for the head of a response and one for its body, each through several coroutines: a tenth of what an
acceptance costs. What does not fit here takes ASGI's way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from infertool.gateway.joined_writes import JoinedWrites

# Its place in an ASGI scope.
EXCHANGE: Final = "infertool.exchange"
_CONTROLS: Final = bytes(code for code in (*range(32), 127) if code != ord("\t"))


def whole_body(scope: Scope) -> bytes | None:
    """Take the body of a request, if all of it has arrived and nothing of it was taken."""
    cycle: RequestResponseCycle | None = scope.get(EXCHANGE)
    if cycle is None or cycle.more_body or cycle.disconnected or cycle.response_complete:
        return None
    # A large body stops the reading, and with it the news that the client hung up.
    cycle.flow.resume_reading()
    cycle.message_event.clear()
    body, cycle.body = cycle.body, bytearray()
    return bytes(body)


def has_room(scope: Scope) -> bool:
    """Return True if a part of the response can be written without a wait for the client."""
    cycle: RequestResponseCycle | None = scope.get(EXCHANGE)
    return cycle is None or not cycle.flow.write_paused


def respond(scope: Scope, response: Response, more: list[tuple[bytes, bytes]]) -> bool:
    """Send a response with `more` headers. Return False if it has to take ASGI's way: nothing is sent then."""
    cycle: RequestResponseCycle | None = scope.get(EXCHANGE)
    if cycle is None or cycle.response_started or cycle.disconnected or cycle.flow.write_paused:
        return False
    headers = [*cycle.default_headers, *response.raw_headers, *more]
    lines = [b"%b: %b\r\n" % header for header in headers]
    fields = b"".join(lines)
    is_plain = len(fields.translate(None, _CONTROLS)) == len(fields) - 2 * len(lines)
    if not is_plain or scope["method"] == "HEAD" or b"connection" in dict(headers):
        return False
    cycle.response_started = cycle.response_complete = True
    end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
    writes: JoinedWrites = cycle.transport  # type: ignore[assignment]  # see `GatewayProtocol`
    writes.write_whole(b"".join((STATUS_LINE[response.status_code], fields, end, response.body)))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
