"""Whatever comes in, only a FrameError comes out; and what goes out comes in again."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infertool.phoenix import frames
from infertool.phoenix.frames import Frame, FrameError

INT64 = st.integers(-(2**63), 2**63 - 1)
REFS = st.none() | st.text() | INT64
JSON = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
NAMES = st.text(max_size=60)
TEXT_REFS = st.none() | st.text(min_size=1, max_size=60)
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(REFS, REFS, st.text(), st.text(), JSON)
def test_text_round_trip(join_ref: frames.Ref, ref: frames.Ref, topic: str, event: str, payload: Any) -> None:
    frame = Frame(join_ref, ref, topic, event, payload)
    assert frames.decode_text(frames.encode_text(join_ref, ref, topic, event, payload)) == frame
    assert frames.decode_text(frames.encode_push(join_ref, ref, topic, event, orjson.dumps(payload))) == frame
    without = Frame(None, ref, topic, event, payload)
    assert frames.decode_text(frames.encode_text(join_ref, ref, topic, event, payload, "1.0.0"), "1.0.0") == without


@given(st.binary() | ANY_TEXT, st.sampled_from(["1.0.0", "2.0.0"]), st.booleans())
@example("\ud800", "2.0.0", True)
def test_any_bytes(data: bytes | str, vsn: frames.Vsn, strict: bool) -> None:
    with contextlib.suppress(FrameError):
        assert isinstance(frames.decode_text(data, vsn, strict=strict), Frame)


@given(JSON | st.lists(JSON, min_size=4, max_size=6), st.sampled_from(["1.0.0", "2.0.0"]))
def test_any_json(value: Any, vsn: frames.Vsn) -> None:
    with contextlib.suppress(FrameError):
        assert isinstance(frames.decode_text(orjson.dumps(value), vsn), Frame)


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_any_text_to_encode(join_ref: str, ref: str, topic: str, event: str) -> None:
    with contextlib.suppress(FrameError):
        frames.encode_text(join_ref, ref, topic, event, {})
        frames.encode_push(join_ref, ref, topic, event, b"{}")
        frames.encode_client_push(join_ref, ref, topic, event, b"")


@given(TEXT_REFS, TEXT_REFS, NAMES, NAMES, st.binary())
def test_binary_round_trips(join_ref: str | None, ref: str | None, topic: str, event: str, data: bytes) -> None:
    push = frames.encode_client_push(join_ref, ref, topic, event, data)
    assert frames.decode_from_client(push) == Frame(join_ref, ref, topic, event, data)
    push = frames.encode_server_push(join_ref, topic, event, data)
    assert frames.decode_from_server(push) == Frame(join_ref, None, topic, event, data)
    reply = frames.encode_reply(join_ref, ref, topic, event, data)
    payload = {"status": event, "response": data}
    assert frames.decode_from_server(reply) == Frame(join_ref, ref, topic, "phx_reply", payload)
    assert frames.decode_from_server(frames.encode_broadcast(topic, event, data)) == Frame(
        None, None, topic, event, data
    )


@given(st.binary(max_size=40))
def test_any_binary(data: bytes) -> None:
    for decode in (frames.decode_from_client, frames.decode_from_server):
        with contextlib.suppress(FrameError):
            assert isinstance(decode(data), Frame)


def test_integer_refs_are_not_strings() -> None:
    assert frames.decode_text('[1,2,"t","e",{}]').ref == 2
    with pytest.raises(FrameError):
        frames.decode_text('[true,2,"t","e",{}]')


def test_deep_nesting_and_nan() -> None:
    with pytest.raises(FrameError):
        frames.decode_text('["1","2","t","e",' + "[" * 10_000 + "]" * 10_000 + "]")
    with pytest.raises(FrameError):
        frames.decode_text('["1","2","t","e",{"a":NaN}]')


def test_too_long_for_binary() -> None:
    with pytest.raises(FrameError, match="255"):
        frames.encode_broadcast("t" * 256, "e", b"")


def test_a_fragment_is_not_encoded_again() -> None:
    assert frames.encode_text("1", "2", "t", "e", orjson.Fragment(b'{"a" : 1}')) == b'["1","2","t","e",{"a" : 1}]'
