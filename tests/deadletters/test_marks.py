"""Headers of the producer and ours, over deaths, replays, staging, and archives."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.brokers.headers import is_property, text
from infertool.brokers.stomp import messages
from infertool.brokers.stomp.conventions import CONVENTIONS
from infertool.deadletters import ids, letters, marks, record
from infertool.deadletters.archive import records
from infertool.deadletters.letters import Writer
from infertool.deadletters.record import Cause, comes_back
from infertool.deadletters.replay import sending
from infertool.message import BodyKind, Message, Outgoing, TypedMessage
from tests.support.messages import text_message

_numbers = itertools.count(1)
CAUSE = Cause(
    event_id="e", request_id="", stage="infer", error_type="E", error="no", attempts=1,
    failed_at="2026-01-01T00:00:01.000Z", first_failed_at="2026-01-01T00:00:00.000Z", consumer="c", model="m",
)  # fmt: skip


def delivered(sent: Outgoing) -> Message:
    """Return `sent` as ActiveMQ delivers it, which takes no header that it does not understand."""
    assert not [pair for pair in text(sent).items() if messages.is_refused(*pair)]
    number = next(_numbers)
    brokers = {"destination": sent.destination, "message-id": f"ID:{number}", "persistent": "true", "ack": f"a{number}"}
    defaults = {"priority": "4", "timestamp": f"{1_700_000_000_000 + number}", "expires": "0"}
    headers = {**defaults, **text(sent), **brokers, "subscription": "s1"}
    return text_message(f"ID:{number}", sent.destination, headers, sent.body, sent.kind, False, 1, f"a{number}")


def dead_letter(message: Message, cause: Cause, queue: str) -> Outgoing:
    return record.dead_letter(message, cause, queue, CONVENTIONS)


def event(headers: Mapping[str, str]) -> Message:
    """Return an event as JMS may send it: what has the name of a broker's header may hide that."""
    brokers = {"message-id": "ID:first", "destination": "/queue/in", "persistent": "true", "ack": "a"}
    return text_message("ID:first", "/queue/in", {**brokers, **headers}, b"{}", BodyKind.TEXT, False, 1, "a")


def dies(message: Message, queue: str = "/queue/dead") -> Message:
    return delivered(dead_letter(message, CAUSE, queue))


def replayed(dead: Message, number: int = 1) -> Message:
    return delivered(sending.replay(letters.read(dead), "/queue/in", CONVENTIONS, replay_id=f"run-{number}"))


def theirs(message: Message) -> dict[str, str]:
    """Return the producer's headers, without those that the broker adds to any message."""
    return {k: v for k, v in marks.producers(message.headers).items() if k not in {"priority", "timestamp", "expires"}}


ODD = {
    "replay_count": "7", "replay_id": "mine", "original_message_id": "theirs", "original_destination": "/queue/evil",
    "original_timestamp": "then", "original_expires": "never", "dlq_policy": "x", "dlq_stage": "mine", "dlq_error": "e",
    "dlq_format": "csv", "dlq_event_id": "z", "staged_expires": "5", "infertool_own_replay_id": "q", "infertool": "1",
    "dlq_headers_dropped": "3", "": "nameless", "JMSXGroupID": "g",
}  # fmt: skip
TAKEN_FOR_THE_BROKERS = {
    "priority": "high", "expires": "tomorrow", "timestamp": "2026-11-26T17:00:00Z", "persistent": "maybe",
    "redelivered": "x", "content-length": "five", "amq-msg-type": "map", "transaction": "t", "receipt": "r",
    "AMQ_SCHEDULED_DELAY": "60000", "AMQ_SCHEDULED_REPEAT": "2", "AMQ_SCHEDULED_CRON": "* * * * *",
    "transformation": "jms-map-json", "reply-to": "/queue/", "JMSXGroupSeq": "abc", "JMSPriority": "abc",
    "JMSXDeliveryCount": "9", "JMSExpiration": "1", "original-destination": "/queue/x", "scheduledJobId": "ID:1",
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [*ODD.items(), *TAKEN_FOR_THE_BROKERS.items()])
def test_each_odd_header_survives_every_way(name: str, value: str, tmp_path: Path) -> None:
    once = {name: value, "tenant": "acme"}
    round_trip(once, tmp_path)


def test_all_of_them_at_once(tmp_path: Path) -> None:
    together = {**ODD, **TAKEN_FOR_THE_BROKERS}
    del together["replay_id"]  # with it they are what infertool wrote before there were marks
    round_trip(together, tmp_path)


def round_trip(headers: Mapping[str, str], folder: Path) -> None:
    """Death, staging and back, replay, death, archive and restore, death: nothing of the producer's is lost."""
    first = dies(event(headers))
    assert headers.items() <= marks.producers(first.headers).items()
    staged = delivered(
        sending.unstaged(delivered(sending.staged(first, "/queue/dead.scan", CONVENTIONS)), "/queue/dead", CONVENTIONS)
    )
    assert theirs(staged) == theirs(first)
    assert headers.items() <= marks.producers(staged.headers).items()
    alive = replayed(staged)
    assert theirs(alive) == theirs(first)
    check_alive(alive, headers, replays="1")
    second = dies(alive)
    assert theirs(second) == theirs(first)
    restored = replayed(from_archive(second, folder), 2)
    assert theirs(restored) == theirs(first)
    check_alive(restored, headers, replays="2")
    third = letters.read(dies(restored))
    assert headers.items() <= marks.producers(third.message.headers).items()
    assert (third.replay_count, third.original_id, third.origin) == (2, "ID:first", "/queue/in")
    assert (third.stage, third.error, ids.event_id(third)) == ("infer", "no", "e")


def check_alive(message: Message, headers: Mapping[str, str], replays: str) -> None:
    """The producer's headers stand under their own names again where the broker takes them and does nothing."""
    plain = {
        name: value
        for name, value in headers.items()
        if messages.is_sendable(name, value) and not name.startswith(("infertool_own_", "original-"))
    }
    assert plain.items() <= message.headers.items()
    assert headers.items() <= marks.producers(message.headers).items()
    own = marks.ours(message.headers)
    assert (own["replay_count"], own["original_message_id"]) == (replays, "ID:first")
    assert own["original_destination"] == "/queue/in"
    assert not [name for name in message.headers if name in marks.OF_DEATH and name not in headers]


def from_archive(message: Message, folder: Path) -> Message:
    path = folder / "dead.jsonl"
    path.write_bytes(records.encode(message))
    [batch] = records.read(path)
    [found] = batch.messages
    return found


names = st.sampled_from([*ODD, *TAKEN_FOR_THE_BROKERS, "tenant", "dlq_x", marks.KEPT]) | st.text(max_size=12)
values = st.sampled_from(["", "0", "7", "true", "infertool/1", "-1", "1" * 30]) | st.text(max_size=20)


@given(st.dictionaries(names.filter(lambda name: not name.startswith(marks.KEPT)), values, max_size=8))
def test_any_headers_survive(headers: dict[str, str]) -> None:
    message = event({k: v for k, v in headers.items() if k not in {"message-id", "destination", "ack", "subscription"}})
    if marks.is_dead_letter(message.headers) or marks.is_replay(message.headers):
        return
    first = dies(message)
    second = dies(replayed(first))
    lasting = {
        k: v for k, v in marks.producers(message.headers).items() if k not in {"priority", "timestamp", "expires"}
    }
    assert theirs(first) == theirs(second) == lasting
    assert letters.read(second).replay_count == 1


def test_a_producers_count_is_not_ours() -> None:
    dead = letters.read(dies(event({"replay_count": "7", "original_destination": "/queue/elsewhere"})))
    assert (dead.writer, dead.replay_count, dead.origin) == (Writer.INFERTOOL, 0, "/queue/in")
    stranger = letters.read(event({"replay_count": "7", "dlq_stage": "mine", "dlq_error": "x", "dlq_failed_at": "now"}))
    assert (stranger.writer, stranger.replay_count, stranger.stage) == (Writer.STRANGER, 0, "")


OLD = {
    "original_destination": "/queue/in", "original_message_id": "ID:old", "replay_count": "1", "dlq_stage": "infer",
    "dlq_error_type": "E", "dlq_error": "no", "dlq_failed_at": "2026-01-31T03:00:00.000Z",
}  # fmt: skip


def test_letters_and_replays_from_before_the_marks_are_understood() -> None:
    dead = letters.read(event({**OLD, "dlq_policy": "x"}))
    assert (dead.writer, dead.origin, dead.original_id, dead.replay_count) == (
        Writer.INFERTOOL,
        "/queue/in",
        "ID:old",
        1,
    )
    assert marks.producers(dead.message.headers).keys() >= {"dlq_policy"}
    assert replayed(dead.message).headers["replay_count"] == "2"
    again = letters.read(dies(event({"original_message_id": "ID:old", "replay_count": "2", "replay_id": "run-9"})))
    assert (again.original_id, again.replay_count, again.replay_id) == ("ID:old", 2, "run-9")


def test_where_it_came_from_is_never_overwritten() -> None:
    elsewhere = dies(dies(event({})), "/queue/other.dead")
    assert elsewhere.headers["original_destination"] == "/queue/in"
    assert elsewhere.headers["original_message_id"] == "ID:first"
    assert elsewhere.headers["dlq_event_id"] == "e"


def test_where_the_broker_says_it_came_from_is_not_overwritten() -> None:
    """A consumer of the broker's own dead-letter queue fails, too."""
    brokers = {"original-destination": "/queue/orders", "originalExpiration": "0", "dlqDeliveryFailureCause": "x"}
    assert dies(event(brokers)).headers["original_destination"] == "/queue/orders"
    alone = {"original-destination": "/queue/orders"}
    assert dies(event(alone)).headers["original_destination"] == "/queue/in"


def test_a_dead_letter_is_sent_neither_to_where_it_is_nor_to_where_it_came_from() -> None:
    dead = dies(event({}), "/queue/dead")
    assert comes_back(dead, "/queue/dead")
    assert comes_back(dead, "/queue/in")
    assert not comes_back(dead, "/queue/other")
    # Neither has an event, nor a replay, whatever a producer writes on it.
    assert not comes_back(event({"dlq_stage": "infer", "original_destination": "/queue/dead"}), "/queue/dead")
    assert not comes_back(replayed(dead), "/queue/dead")
    before_the_marks = {**OLD, "destination": "/queue/x"}
    assert comes_back(event(before_the_marks), "/queue/in")


def can_be_carried(sent: Outgoing) -> bool:
    return sending.can_be_carried(delivered(sent), CONVENTIONS)


@pytest.mark.parametrize("name", ["original_message_id", "original_destination"])
def test_what_we_take_over_is_bounded(name: str) -> None:
    long = ":" * 20_000
    letter_of = dead_letter(event({**OLD, "replay_id": "r", name: long}), CAUSE, "/queue/dead")
    assert can_be_carried(letter_of)


def test_an_id_of_any_length_is_bounded_where_we_write_it() -> None:
    stranger = text_message(
        ":" * 50_000, "/queue/dead", {"original-destination": "/queue/in"}, b"{}", BodyKind.TEXT, False, 1, "a"
    )
    for sent in (
        dead_letter(stranger, CAUSE, "/queue/dead"),
        sending.staged(stranger, "/queue/dead.scan", CONVENTIONS),
        sending.replay(letters.read(stranger), "/queue/in", CONVENTIONS, replay_id="r-1"),
    ):
        assert can_be_carried(sent)


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("priority", "9", True), ("priority", "10", False), ("priority", "-1", False), ("priority", "٤", False),
        ("priority", " 5", False), ("timestamp", "1700000000000", True), ("timestamp", "-1", True),
        ("timestamp", "+5", False), ("timestamp", "007", False), ("timestamp", "9" * 19, False),
        ("timestamp", "", False),
        ("expires", "0", True), ("expires", "1.5", False), ("reply-to", "/queue/x", True), ("reply-to", "foo", True),
        ("reply-to", "", True), ("reply-to", "/remote-temp-queue/ID:a", True), ("reply-to", "/temp-queue/x", False),
        ("reply-to", "/topic/", False), ("reply-to", "/queue/a,/queue/b", False), ("reply-to", "/queue/a?b", False),
        ("reply-to", " /queue/x", False), ("correlation-id", "\n", True), ("type", "", True), ("tenant", "x", True),
        ("transformation", "jms-map-json", False), ("AMQ_SCHEDULED_DELAY", "200", False), ("JMSXGroupID", "g", True),
        ("JMSXGroupSeq", "1", True), ("JMSXGroupSeq", "x", False), ("JMSDeliveryMode", "1", False), ("", "x", False),
        ("receipt", "x", False), ("transaction", "x", False), ("JMSFoo", "x", True), ("content-encoding", "x", True),
    ],
)  # fmt: skip
def test_what_can_be_sent_again(name: str, value: str, taken: bool) -> None:
    assert (messages.is_sendable(name, value) or is_property(name, value)) is taken


@pytest.mark.parametrize("name", ["type", "priority", "correlation-id", "amqp-message-id", "amqp-expiration"])
def test_a_header_of_another_broker_does_not_become_a_property(name: str) -> None:
    """There headers and properties stand apart; in a frame of STOMP they do not."""
    came = TypedMessage("ID:1", "dead", {name: "7"}, b"{}", BodyKind.TEXT, False, 1, "t")
    alive = delivered(sending.replay(letters.read(came), "/queue/in", CONVENTIONS, replay_id="r-1"))
    assert marks.producers(alive.headers)[name] == "7"
    assert getattr(alive.properties, {"amqp-message-id": "message_id"}.get(name, "type")) is None
