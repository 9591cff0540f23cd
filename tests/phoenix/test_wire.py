"""Our WebSocket frames, read by the parser of another library."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websocket import ABNF, frame_buffer

from infertool.phoenix import stream


def read_all(data: bytes) -> list[ABNF]:
    """Return the frames in `data`, as websocket-client reads them."""
    position = 0

    def take(size: int) -> bytes:
        nonlocal position
        position += size
        return data[position - size : position]

    parser = frame_buffer(take, skip_utf8_validation=True)
    read = []
    while position < len(data):
        read.append(parser.recv_frame())
    return read


@given(st.lists(st.binary(max_size=300), max_size=4), st.sampled_from([ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY]))
def test_what_is_written_is_read_again(messages: list[bytes], opcode: int) -> None:
    read = read_all(b"".join(stream.frames(messages, opcode)))
    assert [(frame.fin, frame.opcode, frame.mask_value, frame.data) for frame in read] == [
        (1, opcode, 1, message) for message in messages
    ]


@pytest.mark.parametrize("length", [0, 1, 3, 4, 125, 126, 127, 65_535, 65_536, 1_000_001])
def test_lengths(length: int) -> None:
    message = bytes(n % 251 for n in range(length))
    [frame] = read_all(b"".join(stream.frames([message], ABNF.OPCODE_TEXT)))
    assert frame.data == message


def test_each_frame_has_a_key_of_its_own() -> None:
    heads = {frame[:6] for frame in stream.frames([b"abcd"] * 20, ABNF.OPCODE_TEXT)}
    assert len(heads) == 20
