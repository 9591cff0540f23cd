"""Letters whose bodies are packed, or MessagePack: the tools read what the consumer reads."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import msgspec
import pytest

from infertool import codec
from infertool.cli.common import deadletters
from infertool.deadletters import bodies, ids, letters
from infertool.deadletters.replay import editing
from infertool.deadletters.replay.editing import EditError
from infertool.deadletters.selection import select
from infertool.message import Message
from tests.support.messages import message

JSON = b'{"event_id": "e-7", "amount": 12345678901234567890.10, "tier": "gold"}'
MSGPACK = msgspec.msgpack.encode(
    {"event_id": "e-7", "tier": "gold", "raw": b"\x00\xff", 1: datetime(2026, 1, 2, tzinfo=UTC)}
)


def packed(body: bytes, encoding: str, content_type: str = "application/json") -> Message:
    return message(codec.packed(body, encoding), given={"content-encoding": encoding, "content-type": content_type})


READ = {
    "gzip": packed(JSON, "gzip"),
    "zstd": packed(JSON, "zstd"),
    "msgpack": message(MSGPACK, given={"content-type": "application/msgpack"}),
    "both": packed(MSGPACK, "gzip", "application/x-msgpack"),
}


@pytest.mark.parametrize("kind", READ)
def test_the_payload_is_found_by_its_fields_and_its_id(kind: str) -> None:
    letter = letters.read(READ[kind])
    assert ids.event_id(letter) == "e-7"
    assert ids.is_known_as(letter, frozenset({"e-7"}))
    assert select(where="tier == 'gold'", now=time.time()).matches(letter)
    assert not select(where="tier == 'iron'", now=time.time()).matches(letter)


@pytest.mark.parametrize("kind", READ)
def test_it_is_shown_as_json(kind: str) -> None:
    letter = letters.read(READ[kind])
    shown = json.loads(deadletters.dump(deadletters.document(letter)))
    assert shown["payload"]["tier"] == "gold"
    assert shown["size"] == len(letter.message.body)
    assert any('"tier": "gold"' in line for line in deadletters.details(letter))


def test_msgpack_is_shown_as_results_show_it() -> None:
    assert json.loads(bodies.as_json(READ["both"])) == {
        "event_id": "e-7", "tier": "gold", "raw": "base64:AP8=", "1": "2026-01-02T00:00:00+00:00",
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_packed_body_is_packed_again_when_it_was_edited(encoding: str) -> None:
    edit = editing.parse(["tier=iron"], None)
    assert edit is not None
    edited = edit.body(letters.read(READ[encoding]))
    assert codec.unpacked(edited, encoding, 1000) == JSON.replace(b'"gold"', b'"iron"')


@pytest.mark.parametrize("kind", ["msgpack", "both"])
def test_msgpack_is_not_edited(kind: str) -> None:
    edit = editing.parse(["tier=iron"], None)
    assert edit is not None
    with pytest.raises(EditError, match="MessagePack"):
        edit.body(letters.read(READ[kind]))


@pytest.mark.parametrize(
    ("body", "encoding", "content_type"),
    [
        (b"no gzip", "gzip", "application/json"),
        (b"\xc1", "", "application/msgpack"),
        (codec.packed(b"\xc1", "zstd"), "zstd", "application/msgpack"),
        (codec.packed(b"x" * 2000, "gzip"), "gzip", "text/plain"),
        (b"\xff\xfe", "utf-16", "text/plain"),
        (b"", "gzip", ""),
    ],
)
def test_what_is_not_what_it_says_is_no_payload_and_is_shown(body: bytes, encoding: str, content_type: str) -> None:
    letter = letters.read(message(body, given={"content-encoding": encoding, "content-type": content_type}))
    assert letter.payload() is None
    assert "payload" not in deadletters.document(letter)
    assert deadletters.details(letter)


def test_a_bomb_stays_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_UNPACKED", 1000)
    bomb = packed(b'{"a": "%b"}' % (b"x" * 2000), "zstd")
    assert bodies.as_json(bomb) == bomb.body
    assert letters.read(bomb).payload() is None
