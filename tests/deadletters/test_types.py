"""A header that is no text keeps its type, and AMQP's properties stay, over deaths, replays, staging and archives."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infertool.brokers import header_types
from infertool.brokers.memory.adapter import CAPABILITIES, CONVENTIONS
from infertool.brokers.memory.queues import Stored
from infertool.brokers.memory.subscription import to_message
from infertool.brokers.stomp.conventions import CONVENTIONS as STOMP
from infertool.cli.common import deadletters
from infertool.deadletters import letters, marks, record
from infertool.deadletters.archive import records
from infertool.deadletters.archive.records import ArchiveError
from infertool.deadletters.letters import key
from infertool.deadletters.record import Cause
from infertool.deadletters.replay import sending
from infertool.message import BrokerDeath, Message, Outgoing, Properties, TypedMessage
from tests.brokers.conformance.test_6_content import TYPED
from tests.brokers.test_header_types import like, values

_numbers = itertools.count(1)
CAUSE = Cause(
    event_id="e", request_id="", stage="infer", error_type="E", error="no", attempts=1,
    failed_at="2026-01-01T00:00:01.000Z", first_failed_at="2026-01-01T00:00:00.000Z", consumer="c", model="m",
)  # fmt: skip
KNOWN = Properties(
    content_type="application/json", content_encoding="gzip", message_id="theirs", priority=200, ttl_ms=5000
)


def delivered(sent: Outgoing) -> Message:
    """Return `sent` as the memory broker delivers it."""
    number = next(_numbers)
    stored = Stored(f"m:{number}", number, sent, 1_700_000_000_000 + number, 1_700_000_000_000 + number)
    return to_message(stored, sent.destination, 1, str(number), CAPABILITIES)


def event(table: Mapping[str, object], known: Properties = KNOWN) -> Message:
    headers, types = header_types.to_texts(table)
    return delivered(Outgoing("in", b"{}", headers=headers, properties=known, types=types))


def dies(message: Message) -> Message:
    return delivered(record.dead_letter(message, CAUSE, "dead", CONVENTIONS))


def replayed(dead: Message) -> Message:
    return delivered(sending.replay(letters.read(dead), "in", CONVENTIONS, replay_id="r-1"))


def staged_and_back(dead: Message) -> Message:
    away = delivered(sending.staged(dead, "dead.scan", CONVENTIONS))
    assert (away.properties.ttl_ms, away.properties.expires_ms) == (None, None)
    return delivered(sending.unstaged(away, "dead", CONVENTIONS))


def archived(message: Message, folder: Path) -> Message:
    path = folder / "dead.jsonl"
    path.write_bytes(records.encode(message))
    [batch] = records.read(path)
    [found] = batch.messages
    assert key(found) == key(message)
    return found


def theirs(message: Message) -> dict[str, Any]:
    """Return the values of the producer's headers."""
    headers = marks.producers(header_types.of(message))
    return header_types.from_texts(headers, header_types.tags(headers))


def test_every_type_over_every_way(tmp_path: Path) -> None:
    message = event(TYPED)
    for _ in range(2):
        message = dies(message)
        assert like(theirs(message), TYPED)
        message = staged_and_back(message)
        assert like(theirs(message), TYPED)
        message = archived(message, tmp_path)
        assert like(theirs(message), TYPED)
        message = replayed(message)
        assert like(theirs(message), TYPED)
        # Under their own names.
        assert TYPED.keys() <= message.headers.keys()
        assert message.types.keys() <= TYPED.keys()


OURS = {"replay_count": 7, "dlq_error": b"\0", "original_ttl": 0.5, "tenant": "acme"}


def test_a_header_that_is_kept_aside_keeps_its_type(tmp_path: Path) -> None:
    dead = dies(event(OURS))
    assert dead.types[f"{marks.KEPT}replay_count"] == "int"
    assert "replay_count" not in dead.types
    alive = replayed(archived(staged_and_back(dead), tmp_path))
    assert alike(theirs(alive), OURS)
    assert alive.types["replay_count"] == "int"
    assert marks.ours(alive.headers)["replay_count"] == "1"
    assert alike(theirs(dies(alive)), OURS)


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Compare in any order: what is kept aside comes last."""
    return like(dict(sorted(one.items())), dict(sorted(other.items())))


names = st.sampled_from([*OURS, "type", "priority", "dlq_id", f"{marks.OWN}replay_id"]) | st.text(max_size=12)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(table=st.dictionaries(names, values, max_size=5))
def test_any_headers_over_every_way(tmp_path: Path, table: dict[str, object]) -> None:
    for name in marks.OURS | {marks.REPLAY, marks.FORMAT}:
        if table.get(name) == marks.WRITTEN:
            del table[name]
    if table.keys() >= {"original_message_id", "replay_count", "replay_id"} or any(
        name.startswith((marks.KEPT, marks.OWN, marks.REPLAY)) for name in table
    ):
        return
    message = event(table)
    for _ in range(2):
        message = replayed(archived(staged_and_back(dies(message)), tmp_path))
        assert alike(theirs(message), table)


def test_the_properties_of_amqp_over_every_way(tmp_path: Path) -> None:
    dead = dies(event({}))
    found = dead.properties
    assert (found.content_encoding, found.message_id, found.priority) == ("gzip", "theirs", 200)
    # A dead letter does not expire. What the event had is told, as for a time of expiry.
    assert (found.ttl_ms, dead.headers["original_ttl"]) == (None, "5000")
    alive = replayed(archived(dead, tmp_path))
    assert msg(alive) == ("gzip", "theirs", 200, None)
    assert marks.ours(alive.headers)["original_ttl"] == "5000"
    assert marks.ours(dies(alive).headers)["original_ttl"] == "5000"


def msg(message: Message) -> tuple[object, ...]:
    found = message.properties
    return found.content_encoding, found.message_id, found.priority, found.ttl_ms


def test_what_another_program_put_there_keeps_its_lifetime_over_staging() -> None:
    back = staged_and_back(event({"n": 1}))
    assert msg(back) == ("gzip", "theirs", 200, 5000)
    assert back.types == {"n": "int"}
    assert not [name for name in back.headers if "staged" in name]


def test_a_letter_of_the_brokers_own_is_archived_as_such(tmp_path: Path) -> None:
    came = event({"n": 1})
    death = BrokerDeath("in", "expired", complete=True)
    message = TypedMessage(
        came.id, came.source, came.native, came.body, came.kind, False, 1, "t",
        known=came.properties, header_types=came.types, broker_death=death,
    )  # fmt: skip
    found = archived(message, tmp_path)
    assert (found.death, found.types, found.properties) == (death, {"n": "int"}, came.properties)
    assert letters.read(found).origin == "in"


def test_a_header_with_the_name_of_a_property_is_none_in_an_archive(tmp_path: Path) -> None:
    names = {"type": "theirs", "priority": 3, "content-encoding": "x", "destination": "d", "amqp-message-id": "y"}
    found = archived(event(names, Properties(type="ours")), tmp_path)
    assert like(theirs(found), names)
    assert (found.properties.type, found.properties.priority, found.properties.message_id) == ("ours", None, None)


def test_letters_that_differ_by_a_type_are_two(tmp_path: Path) -> None:
    def with_value(value: object) -> Message:
        headers, types = header_types.to_texts({"n": value})
        message = to_message(Stored("m", 1, Outgoing("in", b"", headers=headers, types=types), 1, 1), "in", 1, "t", can)
        return archived(message, tmp_path)

    can = replace(CAPABILITIES)
    assert len({key(with_value(each)) for each in (1, "1", 1.0, True, "true")}) == 5


def test_old_archives_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text(
        '{"infertool_message":1,"id":"ID:1","queue":"/queue/dead","archived_at":"2026-01-31T03:00:00.000+00:00",'
        '"type":"text","headers":[["priority","4"],["tenant","acme"]],"body":"{}"}\n'
    )
    [batch] = records.read(path)
    [found] = batch.messages
    assert (found.headers, dict(found.types), found.properties.priority) == ({"tenant": "acme"}, {}, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"types": {"n": "long"}}, "'long' is no type"), ({"types": {"n": "bool"}}, "no header of the type bool"),
        ({"types": {"m": "int"}}, "no header has the name 'm'"), ({"types": ["n"]}, "Expected `object`"),
        ({"properties": {"priority": "high"}}, "priority"), ({"properties": None}, "Expected `object`"),
        ({"death": {}}, "origin"),
    ],
)  # fmt: skip
def test_a_broken_type_damages_a_record_and_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "dead.jsonl"
    document = json.loads(records.encode(event({"n": 1})))
    path.write_text(json.dumps({**document, **change}) + "\n")
    with pytest.raises(ArchiveError, match="record 1: cannot be understood") as caught:
        list(records.read(path))
    assert said in str(caught.value)


def test_a_look_shows_types(tmp_path: Path) -> None:
    seen = letters.read(dies(event({"retries": 3, "tenant": "acme"})))
    document = deadletters.document(seen)
    assert document["header_types"] == {"retries": "int"}
    assert document["headers"]["retries"] == "3"
    lines = deadletters.details(seen)
    assert "  retries: 3 (int)" in lines
    assert "  tenant: acme" in lines


def test_a_replay_to_stomp_keeps_the_texts() -> None:
    sent = sending.replay(letters.read(dies(event(TYPED))), "/queue/in", STOMP, replay_id="r-1")
    texts, _ = header_types.to_texts(TYPED)
    assert texts.items() <= sent.headers.items()
