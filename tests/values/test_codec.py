"""Codecs against peers: the msgpack package, gzip and zstd; and against bodies that are none of theirs."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import math
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from infertool import codec
from infertool.codec import JSON, MSGPACK, Codec, DecodeError, EncodeError

MIB = 1 << 20
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
VALUES = st.recursive(
    _scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 99), inner),
    max_leaves=20,
)


@given(VALUES)
def test_msgpack_is_that_of_the_usual_package(value: Any) -> None:
    assert codec.decode(MSGPACK, msgpack.packb(value)) == value
    assert msgpack.unpackb(MSGPACK.encode(value), strict_map_key=False) == value


@given(VALUES)
def test_the_old_spec_has_raw_for_bytes_and_texts(value: Any) -> None:
    old = msgpack.packb(value, use_bin_type=False)
    assert codec.decode(MSGPACK, old) == _with_texts(value)


def _with_texts(value: Any) -> Any:
    """Return `value` with texts in place of the bytes that can be texts."""
    match value:
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return value
        case list():
            return [_with_texts(each) for each in value]
        case dict():
            return {key: _with_texts(each) for key, each in value.items()}
    return value


def test_bytes_of_the_old_spec_are_found_at_any_length() -> None:
    value = {"a": [b"\xff" * length for length in (1, 31, 32, 255, 256, 70_000)], "b": "\u20ac", "c": b"\xfe"}
    assert codec.decode(MSGPACK, msgpack.packb(value, use_bin_type=False)) == value


def test_timestamps() -> None:
    now = dt.datetime(2026, 11, 27, 3, 4, 5, 600, tzinfo=dt.UTC)
    assert codec.decode(MSGPACK, msgpack.packb(now, datetime=True)) == now
    assert msgpack.unpackb(MSGPACK.encode(now), timestamp=3) == now


@dataclass
class Point:
    x: int
    y: np.ndarray[Any, Any]


class Word(str):
    __slots__ = ()


@pytest.mark.parametrize("used", [JSON, MSGPACK], ids=lambda used: used.name)
def test_results_of_numpy_and_dataclasses(used: Codec) -> None:
    value = {"array": np.arange(6).reshape(2, 3), "n": np.float32(0.5), "i": np.int64(7), "p": Point(1, np.ones(1))}
    expected = {"array": [[0, 1, 2], [3, 4, 5]], "n": 0.5, "i": 7, "p": {"x": 1, "y": [1.0]}}
    assert codec.decode(used, used.encode(value)) == expected
    assert codec.decode(used, used.encode({"word": Word("a")})) == {"word": "a"}


def test_bytes_stay_bytes_in_msgpack_and_are_refused_by_json() -> None:
    assert codec.decode(MSGPACK, MSGPACK.encode({"png": b"\x89\xff"})) == {"png": b"\x89\xff"}
    with pytest.raises(EncodeError):
        JSON.encode({"png": b"\x89"})


@pytest.mark.parametrize("used", [JSON, MSGPACK], ids=lambda used: used.name)
@pytest.mark.parametrize("value", [object(), {"a": {"b": object()}}, "\ud800", [lambda: 1]])
def test_what_cannot_be_encoded_is_one_kind_of_error(used: Codec, value: Any) -> None:
    with pytest.raises(EncodeError):
        used.encode(value)


def test_msgpack_cannot_hold_integers_past_64_bits_nor_endless_nesting() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (1 << 64, endless):
        with pytest.raises(EncodeError):
            MSGPACK.encode(value)
    assert codec.decode(JSON, JSON.encode(1 << 70)) == 1 << 70


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (b"", "NotMsgpack", "truncated"),
        (b"\xc1", "NotMsgpack", "invalid opcode"),
        (b'{"a": 1}', "NotMsgpack", "trailing"),
        (msgpack.packb([1, 2])[:-1], "NotMsgpack", "truncated"),
        (b"\xdd\xff\xff\xff\xff", "NotMsgpack", "truncated"),
        (b"\xdb\xff\xff\xff\xffa", "NotMsgpack", "truncated"),
        (b"\x91" * 100_000 + b"\xc0", "NotMsgpack", "too deep"),
        (b"\x81\x81\x01\x02\x03", "NotMsgpack", "hashable"),
        (b"\xa2\xff\xfe\xc1", "NotMsgpack", "trailing"),
        (b"\xa9\xff\xfe", "NotMsgpack", "truncated"),
        (msgpack.packb(msgpack.ExtType(42, b"abc")), "UnknownExtension", "42"),
        (b"\x91\xd4\xfeA", "UnknownExtension", "-2"),
        (b"\xc7\x03\xffabc", "NotMsgpack", "imestamp"),
        (b"\xc7\x0c\xff\x00\x00\x00\x01\x7f" + b"\xff" * 7, "NotMsgpack", "imestamp"),
    ],
)
def test_what_is_no_msgpack_says_why(body: bytes, kind: str, told: str) -> None:
    with pytest.raises(DecodeError, match=told) as caught:
        codec.decode(MSGPACK, body)
    assert caught.value.kind == kind


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_say_why(body: bytes) -> None:
    for used in (JSON, MSGPACK):
        with contextlib.suppress(DecodeError):
            codec.decode(used, body)


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        ("application/json", "json"),
        ("application/json; charset=utf-8", "json"),
        ("Application/JSON", "json"),
        ("application/vnd.acme.event+json", "json"),
        ("application/msgpack", "msgpack"),
        ("application/x-msgpack", "msgpack"),
        ("application/vnd.acme+msgpack;v=2", "msgpack"),
        ("text/plain", None),
        ("application/octet-stream", None),
        ("image/svg+xml", None),
        ("", None),
        ("a+json", None),
    ],
)
def test_content_types(content_type: str, name: str | None) -> None:
    found = codec.for_content_type(content_type)
    assert (found and found.name) == name


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", " zstd"])
def test_packed_bodies_come_out_whole_or_not_at_all(encoding: str) -> None:
    body = bytes(range(256)) * 40
    packed = codec.packed(body, encoding)
    assert codec.is_packed(encoding)
    assert codec.unpacked(packed, encoding, len(body)) == body
    with pytest.raises(DecodeError, match="more than") as too_large:
        codec.unpacked(packed, encoding, len(body) - 1)
    assert too_large.value.kind == "TooLarge"
    for broken in (packed[:-1], packed[: len(packed) // 2], b"plain", body[:10]):
        with pytest.raises(DecodeError) as caught:
            codec.unpacked(broken, encoding, len(body))
        assert caught.value.kind in {"NotGzip", "NotZstd"}


def test_a_zstd_frame_that_does_not_tell_its_size() -> None:
    stream = zstandard.ZstdCompressor().compressobj()
    packed = stream.compress(b"a" * 1000) + stream.flush()
    assert codec.unpacked(packed, "zstd", 1000) == b"a" * 1000
    with pytest.raises(DecodeError, match="more than"):
        codec.unpacked(packed, "zstd", 999)
    with pytest.raises(DecodeError, match="not zstd"):
        codec.unpacked(packed[:-3], "zstd", 2000)


@pytest.mark.parametrize("claimed", [20, 1 << 33, 1 << 40, 1 << 62, (1 << 64) - 3])
def test_a_zstd_frame_that_claims_more_than_it_holds_takes_no_memory(claimed: int) -> None:
    """As one that was cut off: a head of 13 bytes can claim any size, and is believed by `decompress`."""
    block = (5 << 3).to_bytes(3, "little") + b"hello"
    frame = zstandard.FRAME_HEADER + b"\xc0\x48" + claimed.to_bytes(8, "little") + block
    with pytest.raises(DecodeError) as caught:
        codec.unpacked(frame, "zstd", MIB)
    assert caught.value.kind == "NotZstd"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_takes_no_more_than_the_limit(encoding: str) -> None:
    """256 MiB in some kilobytes, and once more inside of that."""
    stream = zstandard.ZstdCompressor().compressobj()
    pieces = b"".join(stream.compress(bytes(MIB)) for _ in range(256)) + stream.flush()
    bomb = gzip.compress(bytes(256 * MIB)) if encoding == "gzip" else pieces
    with pytest.raises(DecodeError, match=f"more than {MIB} bytes"):
        codec.unpacked(bomb, encoding, MIB)


@pytest.mark.parametrize("encoding", [None, "", "utf-8", "identity", "binary", "br", "gzip, zstd"])
def test_other_encodings_are_left_alone(encoding: str | None) -> None:
    """Producers write a character set here, too."""
    assert not codec.is_packed(encoding)


def test_a_value_of_msgpack_as_json() -> None:
    value = {1: b"\x00\xff", "t": (dt.datetime(2026, 1, 2, tzinfo=dt.UTC),), b"k": [math.inf], None: {True: "x"}}
    assert orjson.loads(orjson.dumps(codec.for_json(value))) == {
        "1": "base64:AP8=",
        "t": ["2026-01-02T00:00:00+00:00"],
        "base64:aw==": [None],
        "None": {"True": "x"},
    }
