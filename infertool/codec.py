"""Codecs: how the body of a message becomes a value, and a value a body; and the encodings a body is packed in.

The codec is chosen by the content type of a message, else by a setting. JSON is as in `infertool.text.json_text`.
MessagePack is msgspec's: bin and str, timestamps (extension -1), keys of any type, and the old spec, in which bytes and
texts are both raw: raw bytes that are no UTF-8 come out as bytes.
"""

from __future__ import annotations

import base64
import gzip
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, NoReturn

import msgspec
import orjson

from infertool.text import json_text


class DecodeError(ValueError):
    """A body cannot be decoded or unpacked. `kind` is a word for it (NotMsgpack); the text says why, and where."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class EncodeError(TypeError):
    """A codec cannot hold the value."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A form of bodies.

    `decode` raises `DecodeError` or `json_text.JsonError`, which `explain` makes a `DecodeError` of. `encode` raises
    `EncodeError`.
    """

    name: str
    title: str
    content_type: str
    is_text: bool
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    explain: Callable[[bytes, ValueError], DecodeError]


def decode(codec: Codec, body: bytes) -> Any:
    """Return the value in `body`. Raises `DecodeError`."""
    try:
        return codec.decode(body)
    except ValueError as error:
        raise codec.explain(body, error) from None


def _to_json(value: Any) -> bytes:
    try:
        return json_text.dumps(value, orjson.OPT_SERIALIZE_NUMPY)
    except (TypeError, RecursionError) as error:
        raise EncodeError(str(error)) from None


def _explain_json(body: bytes, error: ValueError) -> DecodeError:
    if isinstance(error, DecodeError):
        return error
    if isinstance(error, json_text.NumberError):
        return DecodeError("NumberOutOfRange", f"the body holds a number that cannot be held: {error}")
    try:
        body.decode()
    except UnicodeDecodeError as not_utf8:
        return DecodeError("NotUtf8", f"the body is not UTF-8: {not_utf8.reason} at byte {not_utf8.start}")
    return DecodeError("NotJson", f"the body is not JSON: {error}")


class _UnknownExtension(ValueError):  # noqa: N818  (an answer to msgspec)
    """An extension type that no codec knows."""


def _on_extension(code: int, data: memoryview) -> NoReturn:
    raise _UnknownExtension(f"the body holds extension type {code} ({len(data)} bytes); known is -1, the timestamp")


def _to_basic(value: Any) -> Any:
    """Return what msgspec can write in place of a NumPy array or number, or of a subclass of a basic type."""
    if callable(to_list := getattr(value, "tolist", None)):
        return to_list()
    for basic in (str, int, float):
        if isinstance(value, basic):
            return basic(value)
    raise TypeError(f"Type is not MessagePack serializable: {type(value).__name__}")


_decode_msgpack: Final = msgspec.msgpack.Decoder(ext_hook=_on_extension).decode
_encode_msgpack: Final = msgspec.msgpack.Encoder(enc_hook=_to_basic).encode


def _from_msgpack(body: bytes) -> Any:
    try:
        try:
            return _decode_msgpack(body)
        except UnicodeDecodeError:
            return _decode_msgpack(_with_bytes(body))
    except _UnknownExtension as error:
        raise DecodeError("UnknownExtension", str(error)) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError("NotMsgpack", f"the body is not MessagePack: {error}") from None
    except RecursionError:
        raise DecodeError("NotMsgpack", "the body is MessagePack that is nested too deep") from None


def _to_msgpack(value: Any) -> bytes:
    try:
        return _encode_msgpack(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodeError(str(error)) from None


def _explain_msgpack(_body: bytes, error: ValueError) -> DecodeError:
    return error if isinstance(error, DecodeError) else DecodeError("NotMsgpack", str(error))


# Bytes of a value by its first byte: those of its length (1, 2, 4) and those beside length and content.
_FIXED: Final = {
    0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,
    0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18, 0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5,
}  # fmt: skip
_SIZED: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_SHORT_STR, _SHORT_STR_END, _BIN32 = 0xA0, 0xC0, b"\xc6"
_EXTENSIONS: Final = frozenset({0xC7, 0xC8, 0xC9})
_STRINGS: Final = frozenset({0xD9, 0xDA, 0xDB})


def _with_bytes(body: bytes) -> bytes:
    """Return MessagePack with bin in place of each str that is no UTF-8. Containers are only heads before values."""
    parts: list[bytes] = []
    at, kept = 0, 0
    while at < len(body):
        first, head, size = body[at], 1, 0
        is_text = _SHORT_STR <= first < _SHORT_STR_END
        if is_text:
            size = first & 0x1F
        elif first in _FIXED:
            head = _FIXED[first]
        elif first in _SIZED:
            head = 1 + _SIZED[first]
            size = int.from_bytes(body[at + 1 : at + head]) + (first in _EXTENSIONS)
            is_text = first in _STRINGS
        content = body[at + head : at + head + size]
        if is_text and not _is_utf8(content):
            parts += (body[kept:at], _BIN32, len(content).to_bytes(4), content)
            kept = at + head + size
        at += head + size
    return b"".join([*parts, body[kept:]])


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


JSON: Final = Codec(
    "json", "JSON", "application/json", is_text=True, decode=json_text.loads, encode=_to_json, explain=_explain_json
)
_JSON_EXACT: Final = replace(JSON, decode=json_text.loads_exact)
MSGPACK: Final = Codec(
    "msgpack",
    "MessagePack",
    "application/msgpack",
    is_text=False,
    decode=_from_msgpack,
    encode=_to_msgpack,
    explain=_explain_msgpack,
)


def exact(used: Codec) -> Codec:
    """Return the codec for who passes the value on as JSON: a decimal that a float cannot hold keeps its text."""
    return _JSON_EXACT if used is JSON else used


BY_NAME: Final = {codec.name: codec for codec in (JSON, MSGPACK)}

_CONTENT_TYPES: Final = {
    "application/json": JSON, "text/json": JSON,
    "application/msgpack": MSGPACK, "application/x-msgpack": MSGPACK, "application/vnd.msgpack": MSGPACK,
    "application/messagepack": MSGPACK, "msgpack": MSGPACK, "json": JSON,
}  # fmt: skip


@lru_cache(maxsize=64)
def for_content_type(content_type: str) -> Codec | None:
    """Return the codec of a content type; None if it names none, as text/plain and application/octet-stream."""
    name = content_type.partition(";")[0].strip().lower()
    if found := _CONTENT_TYPES.get(name):
        return found
    return BY_NAME.get(name.rpartition("+")[2]) if "/" in name else None


_GZIP: Final = frozenset({"gzip", "x-gzip"})
_ZSTD: Final = frozenset({"zstd"})


def is_packed(content_encoding: str | None) -> bool:
    """Return True if bodies of this content encoding have to be unpacked. Producers also write a character set here."""
    return bool(content_encoding) and (content_encoding or "").strip().lower() in _GZIP | _ZSTD


def unpacked(body: bytes, content_encoding: str, max_bytes: int) -> bytes:
    """Return what `body` holds, packed by gzip or zstd. Raises `DecodeError`, also past `max_bytes`: TooLarge."""
    unpack = _unzip if content_encoding.strip().lower() in _GZIP else _unzstd
    content = unpack(body, max_bytes + 1)
    if len(content) > max_bytes:
        raise DecodeError("TooLarge", f"the body unpacks to more than {max_bytes} bytes")
    return content


def packed(body: bytes, content_encoding: str) -> bytes:
    """Return `body` packed by gzip or zstd."""
    if content_encoding.strip().lower() in _GZIP:
        return gzip.compress(body, mtime=0)
    import zstandard  # noqa: PLC0415  (only who wants it pays for it)

    return zstandard.ZstdCompressor().compress(body)


def _unzip(body: bytes, most: int) -> bytes:
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(body)).read(most)
    except (OSError, EOFError, zlib.error) as error:
        raise DecodeError("NotGzip", f"the body is not gzip, as its content encoding says: {error}") from None


def _unzstd(body: bytes, most: int) -> bytes:
    import zstandard  # noqa: PLC0415  (only who wants it pays for it)

    try:
        # The reader stops in time, but takes a frame that was cut off for a whole one.
        content = zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=False).read(most)
        is_short = len(content) < most
        # `decompress` takes as much memory as the head claims.
        is_cut_off = is_short and zstandard.frame_content_size(body) > len(content)
        if is_short and not is_cut_off:
            content = zstandard.ZstdDecompressor().decompress(body, max_output_size=most, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DecodeError("NotZstd", f"the body is not zstd, as its content encoding says: {error}") from None
    if is_cut_off:
        raise DecodeError("NotZstd", "the body is not zstd, as its content encoding says: its frame is cut off")
    return content


def for_json(value: Any) -> Any:
    """Return `value` with what JSON cannot hold in place: bytes as "base64:..." and keys as texts."""
    match value:
        case dict():
            return {key if isinstance(key, str) else str(for_json(key)): for_json(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [for_json(each) for each in value]
        case bytes() | bytearray() | memoryview():
            return f"base64:{base64.b64encode(value).decode()}"
    return value
