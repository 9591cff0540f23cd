"""Binary Phoenix frames, vsn 2.0.0: a kind, the sizes of the strings (a byte each), the strings, then the data.

    push from a client  00  join_ref ref topic event
    push from a server  00  join_ref topic event
    reply               01  join_ref ref topic status
    broadcast           02  topic event

Source: Phoenix.Socket.V2.JSONSerializer, and fixtures/phoenix-golden/*/v2_binary_frames.jsonl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from infertool.phoenix.frames import Frame, FrameError

if TYPE_CHECKING:
    from infertool.phoenix.frames import Ref

_PUSH, _REPLY, _BROADCAST = 0, 1, 2
_LARGEST = 255


def encode_client_push(join_ref: Ref, ref: Ref, topic: str, event: str, data: bytes) -> bytes:
    """Return a client's push. Raises `FrameError` for a string longer than 255 bytes, as all encoders here."""
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
