"""The server's side of the wire: HTTP requests and files, messages of clients, finished WebSocket frames ("packets").

A request for a socket is checked (path, Origin, vsn, token) and answered as Phoenix does: 403 with an empty body.

A packet is encoded once for all its receivers. Decoding is looser than `infertool.phoenix.frames`: a real server
accepts any JSON as ref or topic, answers "unmatched topic", and keeps the socket
(fixtures/phoenix-golden/*/v2_malformed_frames.jsonl).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import logging
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import orjson
from websockets.datastructures import Headers
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from infertool.phoenix import frames
from infertool.phoenix.frames import FrameError, Vsn, encode_text
from infertool.text import json_text

if TYPE_CHECKING:
    from infertool.secret import Secret


STATIC = files("infertool.embedded") / "static"
_HTML = "text/html; charset=utf-8"
_CSS = "text/css; charset=utf-8"
_SCRIPT = "text/javascript; charset=utf-8"
_FILES = {
    "/": ("index.html", _HTML),
    "/dashboard.css": ("dashboard.css", _CSS),
    "/vendor/phoenix.mjs": ("vendor/phoenix.mjs", _SCRIPT),
    **{f"/{file.name}": (file.name, _SCRIPT) for file in STATIC.iterdir() if file.name.endswith(".mjs")},
}
# Scripts, styles and sockets of this server only: an event's content can neither load nor run anything.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A response body and its content type."""

    body: bytes
    content_type: str


def page(path: str) -> Page | None:
    """Return the file for a path, or None. Paths come from a fixed table; no other file is served."""
    entry = _FILES.get(path)
    if entry is None:
        return None
    name, content_type = entry
    return Page(STATIC.joinpath(name).read_bytes(), content_type)


SOCKET_PATH = "/socket/websocket"
SUBPROTOCOL = "phoenix"
_TOKEN_PREFIX = "base64url.bearer.phx."  # noqa: S105 - the name of a scheme
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound
# Elixir's Version.match?(vsn, "~> 1.0.0"), and 2.0.0: no pre-release, no leading zero, all three parts.
_VSN = re.compile(r"([12])\.0\.(?:0|[1-9][0-9]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Admission:
    """A socket that may open. `authorized` is True if it presented the token, or none is required."""

    vsn: Vsn
    authorized: bool


class SocketRefused(Exception):  # noqa: N818 - it is an answer, not an error
    """The socket may not open. `status` is the HTTP status of the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def admit(path: str, headers: Headers, *, token: Secret, bind_host: str) -> Admission:
    """Return the socket's protocol version and whether it is authorized. Raises `SocketRefused`."""
    if not _origin_fits(headers, bind_host):
        raise SocketRefused(403)
    params = parse_qs(path.partition("?")[2], keep_blank_values=True)
    vsn = _vsn(params)
    presented = params.get("token", [None])[-1] or _bearer(offered_subprotocols(headers))
    if presented is None or not token:
        return Admission(vsn, authorized=not token)
    if not hmac.compare_digest(presented.encode(), token.reveal().encode()):
        raise SocketRefused(403)
    return Admission(vsn, authorized=True)


def offered_subprotocols(headers: Headers) -> list[str]:
    """Return the names in Sec-WebSocket-Protocol."""
    return [name.strip() for line in headers.get_all("Sec-WebSocket-Protocol") for name in line.split(",")]


def _vsn(params: dict[str, list[str]]) -> Vsn:
    if "vsn[]" in params:
        raise SocketRefused(403)
    match = _VSN.fullmatch(params.get("vsn", ["1.0.0"])[-1])
    if not match:
        raise SocketRefused(403)
    return "2.0.0" if match[1] == "2" else "1.0.0"


def _bearer(subprotocols: list[str]) -> str | None:
    """Return the token of Phoenix's socket option `auth_token: true`; 500 if it is not base64, as in Phoenix."""
    for name in subprotocols:
        if name.startswith(_TOKEN_PREFIX):
            try:
                return _from_base64(name.removeprefix(_TOKEN_PREFIX))
            except (binascii.Error, ValueError):
                raise SocketRefused(500) from None
    return None


def _from_base64(text: str) -> str:
    # The standard alphabet, as in Phoenix (Base.decode64!), although the prefix says base64url.
    padded = text + "=" * (-len(text) % 4)
    return base64.b64decode(padded, validate=True).decode()


def _origin_fits(headers: Headers, bind_host: str) -> bool:
    """Return True unless a page of another site opens this socket. Clients other than browsers send no Origin.

    On loopback the Host header is not trusted: an attacker's name may resolve to it. A server that listens on all
    addresses has no other name to compare with.
    """
    accepted = {*_LOOPBACK, bind_host}
    if bind_host in _WILDCARDS:
        accepted.update(_hostname(f"//{host}") for host in headers.get_all("Host"))
    return all(_hostname(origin) in accepted - {""} for origin in headers.get_all("Origin"))


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


# At level DEBUG the library logs requests and frames, and with them tokens.
_quiet = logging.getLogger(f"{__name__}.library")
_quiet.setLevel(logging.WARNING)
_NORMAL = Close(CloseCode.NORMAL_CLOSURE, "").serialize()


class Wire(ServerProtocol):
    """Decodes bytes into WebSocket frames. Without extensions: Phoenix's `compress` is off by default."""

    def __init__(self, max_frame_bytes: int) -> None:
        super().__init__(max_size=max_frame_bytes, logger=_quiet)

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        """Accept the subprotocol unparsed: a base64 token may contain a slash, which the header must not."""
        return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered_subprotocols(headers) else None

    def fail(self, code: CloseCode | int, reason: str = "") -> None:  # noqa: ARG002 - Phoenix never gives one
        """Close with `code` and no reason."""
        super().fail(code)

    def recv_frame(self, frame: Frame) -> None:
        """Answer every closing handshake with 1000, for any code of the client (v2_client_closes.jsonl)."""
        super().recv_frame(frame)
        if frame.opcode is Opcode.CLOSE and self.close_rcvd_then_sent:
            self.writes[-2] = Frame(Opcode.CLOSE, _NORMAL).serialize(mask=False)


_PAYLOAD = 4


class Written(dict[str, Any]):
    """A JSON object that keeps its text: a broadcast must not change the numbers in it."""

    __slots__ = ("text",)

    def __init__(self, value: dict[str, Any], text: bytes) -> None:
        super().__init__(value)
        self.text = text


class Received(NamedTuple):
    """A message of a client. Fields other than the payload should be a string or None, but may be any JSON."""

    join_ref: Any
    ref: Any
    topic: Any
    event: Any
    payload: Any


def decode(data: bytes, vsn: Vsn) -> Received:
    """Return the message in a text frame. Raises `FrameError` or `JsonError`."""
    parts = json_text.loads_nearest(data)
    if vsn == "2.0.0":
        if type(parts) is not list or len(parts) < len(Received._fields):
            raise FrameError("not an array of five")
        return Received(parts[0], parts[1], parts[2], parts[3], _as_written(parts[4], data))
    try:
        return Received(parts.get("join_ref"), parts["ref"], parts["topic"], parts["event"], parts["payload"])
    except (AttributeError, KeyError):
        raise FrameError("not an object with topic, event, payload and ref") from None


def _as_written(payload: Any, data: bytes) -> Any:
    if type(payload) is not dict or not payload:
        return payload
    try:
        return Written(payload, json_text.raw_elements(data)[_PAYLOAD])
    except json_text.JsonError:  # nested too deep
        return payload


def decode_binary(data: bytes, vsn: Vsn) -> Received:
    """Return the push in a binary frame. Raises `FrameError`; vsn 1.0.0 has no binary frames."""
    if vsn == "1.0.0":
        raise FrameError("vsn 1.0.0 has no binary frames")
    frame = frames.decode_from_client(data)
    # A missing field is empty text here, not null: a push without join_ref counts as one of an earlier join.
    return Received(frame.join_ref or "", frame.ref or "", frame.topic, frame.event, frame.payload)


def reply(vsn: Vsn, message: Received, status: str, response: object) -> bytes:
    """Return the `phx_reply` to `message`. Raises `FrameError` for a binary response on vsn 1.0.0."""
    if isinstance(response, bytes):
        _no_bytes_on_v1(vsn)
        return _packet(
            Opcode.BINARY,
            frames.encode_reply(message.join_ref, message.ref, message.topic, status, response),
        )
    payload = {"status": status, "response": _encodable(response)}
    return _text(vsn, message.join_ref, message.ref, message.topic, "phx_reply", payload)


def push(vsn: Vsn, join_ref: Any, topic: str, event: str, payload: object) -> bytes:
    """Return a channel's message to its client. Raises `FrameError` for a binary payload on vsn 1.0.0."""
    if isinstance(payload, bytes):
        _no_bytes_on_v1(vsn)
        return _packet(Opcode.BINARY, frames.encode_server_push(join_ref, topic, event, payload))
    return _text(vsn, join_ref, None, topic, event, payload)


def broadcast(vsn: Vsn, topic: str, event: str, payload: object) -> bytes:
    """Return a message to all members of a topic. Raises `FrameError` for a binary payload on vsn 1.0.0."""
    if isinstance(payload, bytes):
        _no_bytes_on_v1(vsn)
        return _packet(Opcode.BINARY, frames.encode_broadcast(topic, event, payload))
    return _text(vsn, None, None, topic, event, payload)


def end(vsn: Vsn, join_ref: Any, topic: str, event: str, payload: object) -> bytes:
    """Return a `phx_close` or `phx_error`. Its ref is the join_ref: it answers no push."""
    return _text(vsn, join_ref, join_ref, topic, event, payload)


def _no_bytes_on_v1(vsn: Vsn) -> None:
    if vsn == "1.0.0":
        raise FrameError("vsn 1.0.0 has no binary frames")


def _text(vsn: Vsn, join_ref: Any, ref: Any, topic: str, event: str, payload: object) -> bytes:
    try:
        data = encode_text(join_ref, ref, topic, event, _encodable(payload), vsn)
    except FrameError:
        # orjson reads 1024 levels of nesting and writes 254; a real server has no such limit.
        fragment = orjson.Fragment(json.dumps(payload, ensure_ascii=False))
        data = encode_text(join_ref, ref, topic, event, fragment, vsn)
    return _packet(Opcode.TEXT, data)


def _encodable(payload: object) -> object:
    return orjson.Fragment(payload.text) if isinstance(payload, Written) else payload


def _packet(opcode: Opcode, data: bytes) -> bytes:
    return Frame(opcode, data).serialize(mask=False)
