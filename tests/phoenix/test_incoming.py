"""However the network cuts what a server sends, the same messages come out of a connection, and pings are answered."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from infertool.phoenix.stream import BINARY, TEXT, Connection, Stream, whole_texts
from tests.embedded.channel_server import raw

DATA = st.one_of(
    st.binary(max_size=6), st.sampled_from([125, 126, 127, 300, 65_535, 65_536]).map(lambda size: b"x" * size)
)
Sent = tuple[list[tuple[int, bytes]], bytes]


def whole(opcode: int, data: bytes) -> Sent:
    return [(opcode, data)], raw.frame(opcode, data, masked=False)


def fragmented(opcode: int, first: bytes, second: bytes) -> Sent:
    frames = [raw.frame(opcode, first, fin=False, masked=False), raw.frame(raw.PING, b"p", masked=False)]
    return [(opcode, first + second)], b"".join([*frames, raw.frame(raw.CONT, second, masked=False)])


SENT = st.lists(
    st.one_of(
        st.builds(whole, st.sampled_from([TEXT, TEXT, BINARY]), DATA),
        st.builds(fragmented, st.sampled_from([TEXT, BINARY]), DATA, DATA),
        st.builds(lambda data: ([], raw.frame(raw.PING, data, masked=False)), st.binary(max_size=125)),
    ),
    max_size=6,
)


@given(SENT, st.lists(st.integers(1, 70_000), max_size=8), st.integers(1, 9))
def test_however_it_is_cut(sent: list[Sent], sizes: list[int], rest: int) -> None:
    wire = b"".join(frames for _, frames in sent)
    near, far = socket.socketpair()
    connection = Connection(Stream(near, time.monotonic() + 20), "a socket pair")
    messages = []
    for piece in pieces(wire, sizes, rest):
        far.sendall(piece)
        messages += connection.read()
    connection.close()
    far.close()
    assert messages == [message for expected, _ in sent for message in expected]


def pieces(wire: bytes, sizes: list[int], rest: int) -> Iterator[bytes]:
    """Cut `wire` at `sizes`, then its beginning of what is left into `rest` bytes each, at most 50 of them."""
    at = 0
    for size in itertools.chain(sizes, itertools.repeat(rest, 50)):
        if piece := wire[at : at + min(size, 60_000)]:
            yield piece
        at += len(piece)
    while piece := wire[at : at + 60_000]:
        yield piece
        at += len(piece)


@given(st.binary(), st.lists(DATA))
def test_a_glance_never_reads_past_the_end(garbage: bytes, texts: list[bytes]) -> None:
    whole_texts(garbage, 0)
    wire = b"".join(raw.frame(TEXT, text, masked=False) for text in texts)
    for end in {0, 1, 2, 3, len(wire) // 2, len(wire)}:
        read, at = whole_texts(wire[:end], 0)
        assert read == texts[: len(read)]
        assert at == sum(len(raw.frame(TEXT, text, masked=False)) for text in read) <= end
