"""The STOMP codec: what is written is read again, however the bytes are cut, and garbage ends cleanly."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infertool.brokers.stomp import parser
from infertool.brokers.stomp.frames import Frame, FrameError, Limits, encode, encode_acks, escape_value
from infertool.brokers.stomp.parser import FrameParser

VERSIONS = st.sampled_from(["1.1", "1.2"])
COMMANDS = st.sampled_from(["SEND", "MESSAGE", "ACK", "RECEIPT", "ERROR"])
# Any text that came off a wire: all of Unicode, and bytes that are not UTF-8 as surrogateescape keeps them.
TEXT = st.binary(max_size=30).map(lambda raw: raw.decode("utf-8", "surrogateescape")) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=30
)
HEADERS = st.dictionaries(TEXT.filter(lambda key: key != "content-length"), TEXT, max_size=8)
PIECES = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    pieces: list[bytes] = []
    position = 0
    while position < len(stream):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(stream[position : position + size])
        position += size
    return pieces


def feed_all(pieces: list[bytes], parser: FrameParser) -> tuple[list[Frame], str]:
    frames: list[Frame] = []
    for piece in pieces:
        try:
            frames += parser.feed(piece)
        except FrameError as fault:
            return frames + fault.frames, fault.reason
    return frames, ""


def with_length(frame: Frame) -> Frame:
    return Frame(frame.command, {**frame.headers, "content-length": str(len(frame.body))}, frame.body)


FRAMES = st.builds(Frame, COMMANDS, HEADERS, st.binary(max_size=60)).map(with_length)


@given(st.lists(FRAMES, max_size=5), VERSIONS, PIECES, st.sampled_from([b"", b"\n", b"\r\n", b"\n\n\n"]))
def test_what_is_written_is_read_again_however_it_is_cut(
    frames: list[Frame], version: str, sizes: list[int], heartbeats: bytes
) -> None:
    stream = b"".join(encode(f.command, f.headers, f.body, version=version) + heartbeats for f in frames)
    read, fault = feed_all(cut(stream, sizes), FrameParser(version=version))
    assert fault == ""
    # With CRLF accepted, a raw CR at a line's end would be lost; 1.2 escapes it, 1.1 does not accept CRLF.
    assert read == frames


@given(st.binary(max_size=300), VERSIONS, PIECES)
@example(b"\r\nMESSAGE\r\na:b\r\n\r\nx\0", "1.2", [1])
@example(b"MESSAGE\na:b\r\n\nx\0MESSAGE\r\n\nbody\n\r\n\0", "1.2", [3])
@example(b"ACK\nid:1\n\n\0nonsense\n\n\0", "1.1", [7])
def test_garbage_gives_the_same_frames_however_it_is_cut(stream: bytes, version: str, sizes: list[int]) -> None:
    whole, _ = feed_all([stream], FrameParser(version=version))
    pieces, _ = feed_all(cut(stream, sizes), FrameParser(version=version))
    assert pieces == whole


@given(st.lists(FRAMES, min_size=1, max_size=3), st.data(), PIECES)
def test_a_damaged_stream_gives_the_same_frames_however_it_is_cut(
    frames: list[Frame], data: st.DataObject, sizes: list[int]
) -> None:
    stream = bytearray(b"".join(encode(f.command, f.headers, f.body) for f in frames))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.sampled_from(b"\0\n\r:\\cM0"))
    limits = Limits(header_line=40, headers=5, body=50)
    whole, fault = feed_all([bytes(stream)], FrameParser(limits=limits))
    pieces, fault_of_pieces = feed_all(cut(bytes(stream), sizes), FrameParser(limits=limits))
    assert pieces == whole
    if fault_of_pieces:
        assert fault


# Names and values that come near what the quick way through a MESSAGE may take.
NEAR = st.text(st.sampled_from("ack:\\\n\r\0 é"), max_size=6)
NEARLY_USUAL = st.builds(
    lambda headers, body, length, repeated: encode(
        "MESSAGE", {**headers, **({"content-length": length} if length else {})}, body
    ).replace(b"\n\n", repeated, 1),
    st.dictionaries(NEAR, NEAR, max_size=4),
    st.binary(max_size=8),
    st.sampled_from(["", "0", "3", "8", "x", "99999999999", "\u0663"]),
    st.sampled_from([b"\n\n", b"\nack:1\nack:2\n\n", b"\na\\cb:c\n\n", b"\nno colon\nt:w:o\n\n", b"\r\n\r\n"]),
)


@given(st.lists(NEARLY_USUAL, min_size=1, max_size=3), st.sampled_from(["1.0", "1.1", "1.2"]))
@example([b"MESSAGE\nno colon\nt:w:o\n\nx\0"], "1.2")
@example([b"MESSAGE\na\\cb:c\\\\cd\n\nx\0"], "1.2")
def test_the_quick_way_through_a_message_reads_what_the_careful_one_does(stream: list[bytes], version: str) -> None:
    data, limits = b"\n".join(stream), Limits(header_line=60, headers=5, body=6)
    quick = feed_all([data], FrameParser(version=version, limits=limits))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser, "usual_frames", lambda _data, position, *_rest: position)
        assert feed_all([data], FrameParser(version=version, limits=limits)) == quick


NEARLY_RECEIPTS = st.builds(
    lambda text, end: b"RECEIPT\nreceipt-id:" + text.encode() + end,
    NEAR,
    st.sampled_from([b"\n\n\0", b"\n\n\0\n", b"\r\n\r\n\0", b"\nreceipt-id:2\n\n\0", b"\n\nbody\0", b"\n"]),
)


@given(st.lists(NEARLY_RECEIPTS | NEARLY_USUAL, min_size=1, max_size=3), st.sampled_from(["1.0", "1.1", "1.2"]))
@example([b"RECEIPT\nreceipt-id:r1-a\n\n\0\n", b"MESSAGE\nmessage-id:1\n\nx\0"], "1.2")
@example([b"RECEIPT\nreceipt-id:a\\cb\n\n\0"], "1.2")
def test_the_quick_way_through_a_receipt_reads_what_the_careful_one_does(stream: list[bytes], version: str) -> None:
    data, limits = b"\n".join(stream), Limits(header_line=30, headers=5, body=6)
    quick = feed_all([data], FrameParser(version=version, limits=limits))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser, "usual_frames", lambda _data, position, *_rest: position)
        assert feed_all([data], FrameParser(version=version, limits=limits)) == quick


def test_the_first_of_duplicate_headers_wins_and_order_is_kept() -> None:
    [frame] = FrameParser().feed(b"MESSAGE\nb:1\na:2\nb:3\n\n\0")
    assert list(frame.headers.items()) == [("b", "1"), ("a", "2")]


def test_a_body_of_announced_length_may_hold_nul() -> None:
    [first, second] = FrameParser().feed(b"MESSAGE\ncontent-length:3\n\na\0b\0\nMESSAGE\n\nc\0")
    assert (first.body, second.body) == (b"a\0b", b"c")


@pytest.mark.parametrize(
    ("version", "wire", "text"),
    [
        ("1.0", rb"a\cb\\n", r"a\cb\\n"),
        ("1.1", rb"a\cb\\n\n\r", "a:b\\n\n\\r"),
        ("1.2", rb"a\cb\\n\n\r", "a:b\\n\n\r"),
        ("1.2", rb"\t\\\\c\\\c", r"\t\\c" + "\\:"),
    ],
)
def test_escapes_by_version(version: str, wire: bytes, text: str) -> None:
    [frame] = FrameParser(version=version).feed(b"MESSAGE\nkey:" + wire + b"\n\n\0")
    assert frame.headers["key"] == text


@pytest.mark.parametrize("command", ["CONNECT", "CONNECTED", "STOMP"])
def test_the_handshake_is_never_escaped(command: str) -> None:
    wire = encode(command, {"session": r"ID:a\c"})
    assert wire == command.encode() + b"\nsession:ID:a\\c\n\n\0"
    assert FrameParser().feed(wire) == [Frame(command, {"session": r"ID:a\c"})]


@given(TEXT, VERSIONS)
def test_a_value_escaped_alone_is_as_in_its_frame(value: str, version: str) -> None:
    wire = f"MESSAGE\nkey:{escape_value(value, version)}\n\n\0".encode("utf-8", "surrogateescape")
    assert wire == encode("MESSAGE", {"key": value}, version=version)


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_acks_in_one_piece_are_single_frames(ids: list[str]) -> None:
    assert encode_acks(ids) == b"".join(encode("ACK", {"id": ack}) for ack in ids)


@pytest.mark.parametrize("headers", [{"passcode": "a\nb"}, {"a:b": "c"}, {"a": "b\r"}])
def test_a_header_that_cannot_be_written_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(FrameError):
        encode("CONNECT", headers)


def test_a_lone_surrogate_is_replaced() -> None:
    [frame] = FrameParser().feed(encode("SEND", {"error": "bad \ud800 text"}))
    assert frame.headers["error"] == "bad \ufffd text"


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", "not a STOMP frame"),
        (b"MESSAGE\nnocolon\n\n\0", "without a colon"),
        (b"MESSAGE\ncontent-length:x\n\n\0", "no number"),
        (b"MESSAGE\ncontent-length:" + b"9" * 5000 + b"\n\n\0", "a body of more than"),
        (b"MESSAGE\ncontent-length:104857601\n\n", "a body of more than"),
        (b"MESSAGE\ncontent-length:1\n\nab\0", "no NUL after the body"),
        (b"MESSAGE\na:" + b"x" * 11_000 + b"\n\n\0", "a header line of more than"),
        (b"MESSAGE\na:" + b"x" * 30_000, "a header line of more than"),
        (b"MESSAGE\n" + b"".join(b"h%d:x\n" % n for n in range(1001)) + b"\n\0", "more than 1000 headers"),
        (b"MESSAGE\n" + b"h:x\n" * 3000, "more than 1000 headers"),
    ],
)
def test_what_is_no_frame_or_too_large_is_named(stream: bytes, reason: str) -> None:
    good = b"RECEIPT\nreceipt-id:1\n\n\0"
    with pytest.raises(FrameError, match=reason) as caught:
        FrameParser().feed(good + stream)
    assert [frame.command for frame in caught.value.frames] == ["RECEIPT"]
    assert feed_all(cut(stream, [1000]), FrameParser())[1]


def test_a_thousand_headers_are_accepted() -> None:
    [frame] = FrameParser().feed(b"MESSAGE\n" + b"".join(b"h%d:x\n" % n for n in range(1000)) + b"\n\0")
    assert len(frame.headers) == 1000


@pytest.mark.parametrize("length", [b"content-length:5000000\n", b""])
def test_a_large_body_in_small_pieces(length: bytes) -> None:
    stream = b"MESSAGE\n" + length + b"\n" + b"x" * 5_000_000 + b"\0"
    parser = FrameParser()
    frames, fault = feed_all(cut(stream, [1024]), parser)
    assert (len(frames[0].body), fault, parser.mid_frame) == (5_000_000, "", False)


def test_a_text_body_past_the_limit_is_refused() -> None:
    with pytest.raises(FrameError, match="a body of more than 10 bytes"):
        FrameParser(limits=Limits(body=10)).feed(b"MESSAGE\n\n" + b"x" * 11)
