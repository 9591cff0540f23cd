"""Events that a careless or hostile producer sends, as bytes on the wire."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass

from tests.conftest import FIXTURES

# Limits of the wire format: ActiveMQ closes the connection of who sends more.
MOST_HEADERS = 1000
LONGEST_LINE = 10 * 1024


@dataclass(frozen=True)
class OddEvent:
    """One SEND. `lines` are header lines as they go over the wire.

    `event_id` is what its outcome must carry, None for the broker's message id. `rest` follows the frame; the broker
    closes the connection over it.
    """

    name: str
    body: bytes
    poison: bool
    lines: tuple[bytes, ...] = ()
    as_bytes: bool = False
    persistent: bool = True
    event_id: str | None = None
    rest: bytes = b""

    def frame(self, queue: str) -> bytes:
        lines = [b"destination:" + queue.encode(), b"case:" + self.name.encode(), *self.lines]
        if self.persistent:
            lines.append(b"persistent:true")
        if self.as_bytes:
            lines.append(b"content-length:%d" % len(self.body))
        return b"SEND\n" + b"\n".join(lines) + b"\n\n" + self.body + b"\0" + self.rest


def _event(name: str, **fields: object) -> bytes:
    return json.dumps({"case": name, **fields}).encode()


def bodies() -> Iterator[OddEvent]:
    """Every broken input, as JMS text and as JMS bytes; what holds a NUL can only be bytes."""
    index = json.loads((FIXTURES / "broken" / "index.json").read_text())
    for file, entry in index.items():
        body = (FIXTURES / "broken" / file).read_bytes()
        for as_bytes in (False, True) if b"\0" not in body else (True,):
            name = f"{file.removesuffix('.bin')}-{'bytes' if as_bytes else 'text'}"
            yield OddEvent(name, body, entry["poison"], (b"event_id:" + name.encode(),), as_bytes, event_id=name)
    nul = b'{"x":"\0"}'
    lines = (b"event_id:nul-text", b"content-length:%d" % len(nul), b"amq-msg-type:text")
    yield OddEvent("nul-text", nul, True, lines, event_id="nul-text")
    yield OddEvent("nul-without-length", b'{"x":"', True, rest=b'"}\0\n\n\0')


def large() -> Iterator[OddEvent]:
    filling = "x" * 5_000_000
    for name, body, poison in [
        ("5mb-valid", _event("5mb-valid", filling=filling), False),
        ("5mb-invalid", b"[" + filling.encode(), True),
        ("5mb-not-utf8", b"\xff" * 5_000_000, True),
    ]:
        yield OddEvent(name, body, poison, (b"event_id:" + name.encode(),), event_id=name)


def headers() -> Iterator[OddEvent]:
    """Header lines of every kind, each on an event that works and on one that does not."""
    longest = LONGEST_LINE - len("long:")
    odd: dict[str, tuple[bytes, ...]] = {
        "duplicated": (b"twin:first", b"twin:second", b"twin:third"),
        "escapes": (rb"value:a\cb\nc\\d\re", rb"na\cme:x"),
        "raw-colons": (b"value:a:b::c",),
        "undefined-escape": (rb"value:a\tb",),
        "non-ascii": ("value:größer ☃ \U0001f40d".encode(), "schlüssel:x".encode()),
        "not-utf8": (b"value:caf\xe9\xff\xfe",),
        "empty-value": (b"value:",),
        "spaces": (b"value:  a  ", b" name :x"),
        "control-characters": (b"value:\x01\x1b[2J\x7f",),
        "nul": (b"value:a\0b",),
        "long-line-not-utf8": (b"long:" + b"\xff" * (longest // 3),),
        "long-line": (b"long:" + b"x" * longest,),
        "long-line-that-grows": (b"long:" + b":" * longest,),
        "priority-and-jms": (b"priority:9", b"correlation-id:c-1", b"reply-to:/queue/answers", b"type:t"),
        "looks-like-ours": (
            b"dlq_stage:mine",
            b"dlq_attempts:99",
            b"replay_count:2",
            b"original_destination:/queue/old",
        ),
        "100-headers": _many(100),
        "896-headers": _many(896),
        "950-headers": _many(950),
        "all-headers": _many(MOST_HEADERS - 4),
    }
    for name, lines in odd.items():
        for poison in (False, True):
            full = f"{name}-{'poison' if poison else 'valid'}"
            body = b"{broken" if poison else _event(full)
            yield OddEvent(full, body, poison, (b"event_id:" + full.encode(), *lines), event_id=full)


def _many(count: int) -> tuple[bytes, ...]:
    return tuple(b"h%d:%d" % (n, n) for n in range(count))


def ids() -> Iterator[OddEvent]:
    for name, given, expected in [
        ("text", "e-1", "e-1"), ("number", 17, "17"), ("zero", 0, "0"), ("true", True, None), ("float", 1.5, None),
        ("null", None, None), ("array", ["x"], None), ("object", {"x": 1}, None), ("empty", "", None),
        ("unicode", "é\u202e\0", "é\u202e\0"), ("huge", "x" * 100_000, "x" * 100_000),
    ]:  # fmt: skip
        yield OddEvent(f"id-{name}", _event(f"id-{name}", event_id=given, request_id=given), False, event_id=expected)
    yield OddEvent("id-header-empty", _event("id-header-empty"), False, (b"event_id:",))
    yield OddEvent("id-header-escaped", b"{", True, (rb"event_id:a\cb\nc",), event_id="a:b\nc")
    yield OddEvent("id-missing", b"{", True)


def not_persistent() -> Iterator[OddEvent]:
    for poison in (False, True):
        name = f"non-persistent-{'poison' if poison else 'valid'}"
        yield OddEvent(name, b"" if poison else _event(name), poison, persistent=False)


ODD_EVENTS = {event.name: event for event in itertools.chain(bodies(), large(), headers(), ids(), not_persistent())}
