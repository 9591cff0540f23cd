"""Numbers stay exact wherever an event is shown, stored, edited or forwarded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from infertool.channels.event import ChannelEvent, from_frames, parse_path
from infertool.channels.recording import Recorder, RecordReader
from infertool.cli.common import deadletters, eventlines
from infertool.cli.common.eventlines import Columns, Template
from infertool.cli.common.options import parse_json
from infertool.cli.tail.view import FORMS, form_of
from infertool.codec import JSON
from infertool.consumer.attempt import Decoding, Event
from infertool.consumer.documents import Documents
from infertool.deadletters import letters
from infertool.deadletters.replay import editing
from infertool.deadletters.replay.editing import EditError
from infertool.embedded.channel_server import wire
from infertool.filters import expression
from infertool.load import payloads
from infertool.load.payloads import PayloadOptions, Payloads
from infertool.models.loader import cached
from infertool.models.port import Cached, LoadedModel
from infertool.phoenix.frames import decode_text, encode_push, encode_text
from infertool.phoenix.push import BATCH_EVENT, join_documents
from infertool.watch import panes
from infertool.watch.entry import json_line, read
from infertool.watch.formatting import UNICODE
from tests.support.messages import message

BIG = 12345678901234567890123456789
WRITTEN = (
    b'{"id":12345678901234567890123456789,"amt":12345678901234567.89,"n":[1.10,1E-7,-0.0,1e5],"u":"\xe2\x80\xa8",'
    b'"d":1,"d":2.50}'
)
# Decoders read this one, and no more.
FAR = b'{"far":1e400,"n":1}'


def arrival(text: bytes = WRITTEN, event: str = "other") -> ChannelEvent:
    frame = decode_text(encode_push(None, None, "t", event, text))
    [found] = from_frames([frame], at=1.5)
    return found


def test_a_feed_hands_over_the_text() -> None:
    assert arrival().text == WRITTEN
    assert arrival().payload["id"] == BIG
    results = decode_text(encode_push(None, None, "t", BATCH_EVENT, join_documents([WRITTEN, b'{"a":1.0}'])))
    assert [each.text for each in from_frames([results], at=1.0)] == [WRITTEN, b'{"a":1.0}']
    assert from_frames([results], at=1.0)[0].payload["id"] == BIG
    spread = b'{\n "a" : 1.10 }'
    assert arrival(spread).text == b'{"a":1.10}'


def test_frames_carry_them() -> None:
    assert decode_text(encode_text(None, "1", "t", "e", {"a": BIG})).payload == {"a": BIG}
    assert parse_json(f'{{"room":{BIG}}}') == {"room": BIG}


@pytest.mark.parametrize("text", [WRITTEN, b'{"a":1.0}', b"{}", b'{"a":[1E2]}'])
def test_the_embedded_channel_server_broadcasts_the_text(text: bytes) -> None:
    received = wire.decode(encode_push("1", "2", "t", "new_result", text), "2.0.0")
    assert text in wire.broadcast("2.0.0", "public:results", "new_result", received.payload)
    assert text in wire.push("2.0.0", "1", "t", "new_result", received.payload)
    assert text in wire.reply("2.0.0", received, "ok", received.payload)


def test_tail_prints_the_text() -> None:
    for form in (FORMS["jsonl"], FORMS["raw"], FORMS["pretty"]):
        line = form([arrival()])[0]
        assert WRITTEN.decode().replace("\u2028", "") in line.replace("\u2028", "").replace("\\u2028", "")
    assert Template("{id} {amt} {n[0]} {n} {d} {amt:.1f} {id:.1f}").line(arrival()) == (
        f"{BIG} 12345678901234567.89 1.10 [1.10,1E-7,-0.0,1e5] 2.50 12345678901234568.0 {BIG}.0"
    )
    columns = Columns([parse_path(path) for path in ("id", "payload.amt", "n[1]")])
    assert columns.lines([arrival()])[1].split() == [str(BIG), "12345678901234567.89", "1E-7"]
    chosen = form_of("jsonl", fields="id,amt,n,nope,topic,at", template=None, several=False)
    assert chosen([arrival()]) == [
        f'{{"id":{BIG},"amt":12345678901234567.89,"n":[1.10,1E-7,-0.0,1e5],"nope":null,"topic":"t","at":1.5}}'
    ]


def test_a_line_for_people_has_them() -> None:
    success = b'{"status":"SUCCESS","request_id":%d,"prediction":{"score":1.10},"processing_ms":%d}'
    line = eventlines.line(arrival(success % (BIG, 10**400)))
    assert f"{BIG}  {{" in line
    assert '{"score":1.10}' in line


def test_a_record_keeps_the_text_and_reads_it_again(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    recorder = Recorder(str(path))
    recorder.write([arrival(), arrival(FAR), arrival(b'{\r\n"a":1.10}')])
    recorder.close()
    found = [each for push in RecordReader(str(path)).batches() for each in push]
    assert [each.text for each in found] == [WRITTEN, FAR, b'{"a":1.10}'][: len(found)]
    assert found[0].payload["id"] == BIG
    assert WRITTEN in path.read_bytes()
    assert len(found) == len(path.read_bytes().strip().split(b"\n"))


def test_watch_shows_and_exports_the_text() -> None:
    entry = read(1, arrival())
    assert WRITTEN in json_line(entry)
    shown = "\n".join("".join(text for text, _ in line) for line in panes.detail_lines(entry, 2.0, 200, UNICODE))
    for number in (f'"id": {BIG},', '"amt": 12345678901234567.89,', "1.10,", "1E-7,", "-0.0,", '"d": 1,', '"d": 2.50'):
        assert number in shown
    large = read(1, arrival(b'{"event_id":%d,"processing_ms":%d,"received_at":%d}' % (BIG, 10**400, 10**400)))
    assert large.event_id == str(BIG)
    assert large.processing_ms is None


@pytest.mark.parametrize("body", [WRITTEN, b'{\n  "event_id": %d\n}' % BIG])
def test_the_model_gets_ints_and_the_documents_carry_the_text(body: bytes) -> None:
    event = Event(message(body), event_id="m", received_at=1.0)
    assert Decoding(10_000).decode(event) is None
    assert event.payload
    assert BIG in event.payload.values()
    for document in (
        Documents(include_payload=True, max_bytes=10_000).result(event, {"twice": 2 * BIG}, 0.1, 2.0),
        Documents(include_payload=True, max_bytes=10_000).result(event, Cached({"twice": 2 * BIG}), 0.1, 2.0),
    ):
        assert b'"original_payload":' + body.replace(b"\n", b"").replace(b" ", b"") in document
        assert b'"prediction":{"twice":%d}' % (2 * BIG) in document
        assert b"\n" not in document
    assert JSON.encode([BIG]) == b"[%d]" % BIG


@pytest.mark.parametrize("number", [BIG, 10**25, -(2**63) - 1, 2**64])
def test_an_id_may_have_any_number_of_digits(number: int) -> None:
    event = Event(message(b'{"event_id":%d,"request_id":%d}' % (number, number)), event_id="m", received_at=1.0)
    assert Decoding(10_000).decode(event) is None
    assert (event.event_id, event.request_id) == (str(number), str(number))


@pytest.mark.parametrize("number", [b"1e400", b"1" * 5000])
def test_a_number_that_no_model_can_get_is_said(number: bytes) -> None:
    failure = Decoding(10_000).decode(Event(message(b'{"a":%b}' % number), event_id="m", received_at=1.0))
    assert failure
    assert failure.error_type == "NumberOutOfRange"


def test_a_cache_keeps_them() -> None:
    calls: list[object] = []

    def predict(payload: Any) -> dict[Any, Any]:
        calls.append(payload)
        return {"twice": 2 * payload["id"]}

    model = cached(LoadedModel("m", "m", predict), entries=10, ttl_s=60, ignore=())
    first, again = model.predict({"id": BIG}), model.predict({"id": BIG})
    assert first == again.result == {"twice": 2 * BIG}
    assert model.predict({"id": BIG + 1}) == {"twice": 2 * BIG + 2}
    assert len(calls) == 2


def edited(body: bytes, *assignments: str, script: str | None = None) -> bytes:
    change = editing.parse(assignments, script)
    assert change
    return change.body(letters.read(message(body)))


@pytest.mark.parametrize("body", [WRITTEN, FAR, b' { "a" : 1.10 } ', b"{}"])
def test_set_touches_what_it_names(body: bytes) -> None:
    joint = b"," if b":" in body else b""
    expected = body.rstrip().removesuffix(b"}").rstrip() + joint + b'"x":1'
    assert edited(body, "x=1").replace(b" ", b"") == (expected + b"}").replace(b" ", b"")
    assert edited(WRITTEN, f"n.1={BIG}.000", "u=text") == WRITTEN.replace(b"1E-7", b"%d.000" % BIG).replace(
        b"\xe2\x80\xa8", b"text"
    )


def test_a_script_leaves_what_it_does_not_touch(tmp_path: Path) -> None:
    script = tmp_path / "fix.py"
    script.write_text("def fix(payload):\n    payload['id'] += 1\n    payload['amt2'] = 0.1\n    return payload\n")
    text = edited(WRITTEN, script=f"{script}:fix")
    assert text == WRITTEN.replace(str(BIG).encode(), str(BIG + 1).encode()).replace(b'"d":1,', b"").replace(
        b"2.50}", b'2.50,"amt2":0.1}'
    )
    for bad in ("return {1: 2}", "return {1, 2}"):
        script.write_text(f"def bad(payload):\n    {bad}\n")
        with pytest.raises(EditError, match="not JSON"):
            edited(WRITTEN, script=f"{script}:bad")


def test_peek_shows_the_text() -> None:
    found = letters.read(message(WRITTEN.replace(b",", b",\n")))
    assert WRITTEN in deadletters.dump(deadletters.document(found)).encode()
    shown = "\n".join(deadletters.details(found))
    assert f'"id": {BIG},' in shown
    assert "12345678901234567.89" in shown
    assert deadletters.document(letters.read(message(FAR)))["payload"]


def test_filters_take_them() -> None:
    where = expression.compile("id > 1e28 && amt > 1.0 && payload.n[0] == 1.1")
    assert where.matches(arrival().payload)
    assert expression.compile("n == 1").matches(letters.read(message(FAR)).payload())


def test_payloads_of_a_load_keep_them(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_bytes(WRITTEN.replace(b",", b",\n ").replace(b":", b" : "))
    made = Payloads(PayloadOptions(payloads.read(str(file)), assignments=(f"x={BIG}.10", "n[3]=sequence()")), "s")
    assert made.make(7)[0] == WRITTEN.replace(b"1e5", b"7").replace(b"2.50}", b'2.50,"x":%d.10}' % BIG)
    file.write_bytes(WRITTEN + b"\r\n" + FAR + b"\n")
    assert payloads.read(str(file)) == (WRITTEN, FAR)
    padded = Payloads(PayloadOptions((WRITTEN,), size="1000"), "s").make(0)[0]
    assert len(padded) == 1000
    assert padded.startswith(WRITTEN[:-1])
    assert json.loads(padded)["id"] == BIG


def test_nothing_else_changes() -> None:
    """What orjson reads and writes without loss is read and written as before."""
    document = {"a": 1.5, "b": [1, True, None, "\u2028"], "c": {"d": 2**63}}
    assert orjson.loads(Documents(include_payload=False, max_bytes=10_000).result(
        Event(message(b"{}"), event_id="m", received_at=1.0), document, 0.0, 0.0
    ))["prediction"] == document  # fmt: skip
