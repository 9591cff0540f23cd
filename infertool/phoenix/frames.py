"""Phoenix Channels frames as pure functions over bytes: vsn 2.0.0 arrays, vsn 1.0.0 objects, the binary kinds.

Both directions are here: the embedded channel server uses the server's side. Sources: Phoenix.Socket.V2.JSONSerializer,
Phoenix.Socket.V1.JSONSerializer, and the transcripts in fixtures/phoenix-golden.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import orjson
from msgspec import Struct

from infertool.text import json_text

_PUSH, _REPLY, _BROADCAST = 0, 1, 2
_LARGEST = 255


def encode_client_push(join_ref: Ref, ref: Ref, topic: str, event: str, data: bytes) -> bytes:
    """Return a client's push. Raises `FrameError` for a string longer than 255 bytes, as all binary encoders do."""
    return _pack(_PUSH, [_text(join_ref), _text(ref), topic, event], data)


def encode_server_push(join_ref: Ref, topic: str, event: str, data: bytes) -> bytes:
    """Return a channel's push to its client."""
    return _pack(_PUSH, [_text(join_ref), topic, event], data)


def encode_reply(join_ref: Ref, ref: Ref, topic: str, status: str, data: bytes) -> bytes:
    """Return a reply with binary data."""
    return _pack(_REPLY, [_text(join_ref), _text(ref), topic, status], data)


def encode_broadcast(topic: str, event: str, data: bytes) -> bytes:
    """Return a broadcast."""
    return _pack(_BROADCAST, [topic, event], data)


def decode_from_client(data: bytes) -> Frame:
    """Return the push in `data`; an empty join_ref or ref is None. Raises `FrameError`, also for other kinds."""
    if _kind(data) != _PUSH:
        raise FrameError("a client sends binary pushes only")
    (join_ref, ref, topic, event), rest = _unpack(data, 4)
    return Frame(join_ref or None, ref or None, topic, event, rest)


def decode_from_server(data: bytes) -> Frame:
    """Return the push, reply or broadcast in `data`. Raises `FrameError`.

    A reply becomes `phx_reply` with the payload `{"status": ..., "response": bytes}`, as a text reply.
    """
    kind = _kind(data)
    if kind == _PUSH:
        (join_ref, topic, event), rest = _unpack(data, 3)
        return Frame(join_ref or None, None, topic, event, rest)
    if kind == _REPLY:
        (join_ref, ref, topic, status), rest = _unpack(data, 4)
        return Frame(join_ref or None, ref or None, topic, "phx_reply", {"status": status, "response": rest})
    if kind == _BROADCAST:
        (topic, event), rest = _unpack(data, 2)
        return Frame(None, None, topic, event, rest)
    raise FrameError(f"unknown binary kind {kind}")


def _text(ref: Ref) -> str:
    return "" if ref is None else str(ref)


def _kind(data: bytes) -> int:
    if not data:
        raise FrameError("empty binary frame")
    return data[0]


def _pack(kind: int, strings: list[str], data: bytes) -> bytes:
    try:
        encoded = [string.encode() for string in strings]
    except UnicodeEncodeError:
        raise FrameError("a string is not UTF-8") from None
    sizes = [len(string) for string in encoded]
    if max(sizes) > _LARGEST:
        raise FrameError(f"a string is longer than {_LARGEST} bytes")
    return b"".join([bytes([kind, *sizes]), *encoded, data])


def _unpack(data: bytes, count: int) -> tuple[list[str], bytes]:
    sizes = data[1 : 1 + count]
    start = 1 + count
    if len(sizes) < count or len(data) < start + sum(sizes):
        raise FrameError("binary frame cut short")
    strings = []
    for size in sizes:
        strings.append(data[start : start + size])
        start += size
    try:
        return [string.decode() for string in strings], data[start:]
    except UnicodeDecodeError:
        raise FrameError("a string is not UTF-8") from None


Vsn = Literal["1.0.0", "2.0.0"]
Ref = str | int | None

_V2_LENGTH = 5
_PAYLOAD = 4
_V1_KEYS = ("topic", "event", "payload", "ref")
_LONGEST_REASON = 200
_REF_TYPES = (str, type(None), int)


class FrameError(ValueError):
    """The bytes are no Phoenix frame, or a frame cannot be encoded. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Frame(Struct, frozen=True, gc=False, eq=False):
    """One message of the Channels protocol. `payload` is decoded JSON, or the data of a binary frame.

    `text` is the original text of a received vsn 2.0.0 text frame, with its numbers as they were written.
    """

    join_ref: Ref
    ref: Ref
    topic: str
    event: str
    payload: Any
    text: bytes = b""

    def __eq__(self, other: object) -> bool:
        """Return True if it is the same message, however it was written."""
        return isinstance(other, Frame) and self._parts() == other._parts()

    def __hash__(self) -> int:
        """Raise `TypeError`, as the payload does, where it cannot be hashed."""
        return hash(self._parts())

    def payload_text(self) -> bytes:
        """Return the payload as it was written, in one line; empty if only its value is known."""
        try:
            return json_text.one_line(json_text.raw_elements(self.text)[_PAYLOAD]) if self.text else b""
        except json_text.JsonError:  # nested too deep to be cut out
            return b""

    def _parts(self) -> tuple[Any, ...]:
        return self.join_ref, self.ref, self.topic, self.event, self.payload


class Reply(Struct, frozen=True, gc=False):
    """The content of a `phx_reply`. `status` is ok, error, or any other string of the channel."""

    status: str
    response: Any

    @property
    def reason(self) -> str:
        """The server's reason for a status that is not ok, cut to 200 characters."""
        return self.whole_reason[:_LONGEST_REASON]

    @property
    def whole_reason(self) -> str:
        """The reason at full length, so that secrets can be masked before it is cut."""
        response = self.response
        reason = response.get("reason", response) if isinstance(response, dict) else response
        return f"{reason or 'no reason given'}"


def reply_of(frame: Frame) -> Reply:
    """Return the reply in a `phx_reply`. Raises `FrameError`."""
    payload = frame.payload
    if type(payload) is not dict or "status" not in payload or "response" not in payload:
        raise FrameError("phx_reply without status and response")
    return Reply(payload["status"], payload["response"])


def encode_text(join_ref: Ref, ref: Ref, topic: str, event: str, payload: Any, vsn: Vsn = "2.0.0") -> bytes:
    """Return the text frame. `payload` is anything orjson encodes, or an `orjson.Fragment`.

    Vsn 1.0.0 has no join_ref on the wire. Raises `FrameError` for what JSON cannot hold.
    """
    parts: object = [join_ref, ref, topic, event, payload]
    if vsn == "1.0.0":
        parts = {"topic": topic, "event": event, "payload": payload, "ref": ref}
    return _json(parts)


def encode_push(join_ref: Ref, ref: Ref, topic: str, event: str, payload_json: bytes) -> bytes:
    """Return the vsn 2.0.0 text frame of a payload that is encoded already; the payload is not examined.

    Raises `FrameError`.
    """
    try:  # for each push, without the overhead of `_json`
        refs = orjson.dumps([join_ref, ref])
    except orjson.JSONEncodeError:
        refs = _json([join_ref, ref])
    return b"%b,%b,%b]" % (refs[:-1], _json_names(topic, event), payload_json)


def decode_text(data: bytes | str, vsn: Vsn = "2.0.0", *, strict: bool = True) -> Frame:
    """Return the frame in `data`. As on a real server, surplus elements and keys are ignored.

    A real server accepts refs, topic and event of any type, and returns them unchanged; so does `strict=False`.
    Raises `FrameError`.
    """
    try:
        parts = json_text.loads_nearest(data)
    except json_text.JsonError as error:
        raise FrameError(f"not JSON: {error}") from None
    frame = _from_array(parts, data) if vsn == "2.0.0" else _from_object(parts)
    if strict:
        _check(frame)
    return frame


def _from_array(parts: Any, data: bytes | str) -> Frame:
    if type(parts) is not list or len(parts) < _V2_LENGTH:
        raise FrameError("not an array of five")
    text = data if isinstance(data, bytes) else data.encode()
    return Frame(parts[0], parts[1], parts[2], parts[3], parts[4], text)


def _from_object(parts: Any) -> Frame:
    if type(parts) is not dict:
        raise FrameError("not an object")
    for key in _V1_KEYS:
        if key not in parts:
            raise FrameError(f"no {key}")
    return Frame(parts.get("join_ref"), parts["ref"], parts["topic"], parts["event"], parts["payload"])


def _check(frame: Frame) -> None:
    # type() instead of isinstance: faster on this hot path, and True is no ref.
    if type(frame.topic) is not str or type(frame.event) is not str:
        raise FrameError("topic or event is no string")
    if type(frame.join_ref) not in _REF_TYPES or type(frame.ref) not in _REF_TYPES:
        raise FrameError("join_ref or ref is neither string, integer nor null")


@lru_cache(maxsize=256)
def _json_names(topic: str, event: str) -> bytes:
    return _json([topic, event])[1:-1]


def _json(value: Any) -> bytes:
    try:
        return json_text.dumps(value)
    except (TypeError, RecursionError) as error:
        raise FrameError(f"not encodable as JSON: {error}") from error
