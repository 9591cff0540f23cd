"""What a letter keeps on its way to another kind of broker; what that one cannot carry is named."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from infertool.brokers import header_types
from infertool.brokers.amqp.conventions import CAPABILITIES as AMQP_CAPABILITIES
from infertool.brokers.amqp.conventions import CONVENTIONS as AMQP
from infertool.brokers.amqp.messages import to_fields
from infertool.brokers.kafka.conventions import CAPABILITIES as KAFKA_CAPABILITIES
from infertool.brokers.kafka.conventions import CONVENTIONS as KAFKA
from infertool.brokers.kafka.messages import to_record
from infertool.brokers.memory.adapter import CAPABILITIES, CONVENTIONS
from infertool.brokers.port import Browse
from infertool.brokers.stomp.conventions import ACTIVEMQ
from infertool.brokers.stomp.conventions import CONVENTIONS as STOMP
from infertool.cli.replay_dlq.view import preview
from infertool.deadletters import marks
from infertool.deadletters.record import Cause, dead_letter
from infertool.deadletters.replay.crossings import Crossing
from infertool.deadletters.replay.decide import Decider, Decision, Fate, Plan
from infertool.deadletters.replay.sending import unchanged
from infertool.message import BodyKind, Message, Properties, TypedMessage
from tests.brokers.conformance.test_6_content import TYPED
from tests.support.messages import message

CAUSE = Cause("e", "", "infer", "E", "no", 1, "2026-01-01T00:00:01.000Z", "2026-01-01T00:00:00.000Z", "c", "m")
PLAN = Plan(queue="dead", run="r", began=0.0, depth=9)


def to_stomp(came: Message, plan: Plan = PLAN, **can: Any) -> Decision:
    crossing = Crossing(CONVENTIONS, STOMP, replace(ACTIVEMQ, **can))
    return Decider(plan, CONVENTIONS, crossing).decide(came)


def of_memory(table: dict[str, object], **known: Any) -> Message:
    headers, types = header_types.to_texts(table)
    event = TypedMessage(
        "m:1", "in", headers, b"{}", BodyKind.TEXT, False, 1, "t", known=Properties(**known), header_types=types
    )
    dead = dead_letter(event, CAUSE, "dead", CONVENTIONS)
    return TypedMessage(
        "m:2", "dead", dead.headers, b"{}", BodyKind.TEXT, False, 1, "t", known=dead.properties, header_types=dead.types
    )


def test_what_a_stomp_broker_cannot_carry_is_named() -> None:
    decision = to_stomp(
        of_memory({"retries": 3, "timestamp": "then", "tenant": "a"}, priority=200, reply_to="amq/rabbitmq.reply-to")
    )
    assert decision.fate is Fate.REPLAY
    assert decision.losses == (
        "the type int of the header retries: it becomes a text",
        "the name of the header timestamp: it becomes infertool_kept_timestamp",
        "the address for replies: it belongs to a connection to the other broker",
        "the priority 200: it becomes 9",
    )
    assert decision.replacement.headers.items() >= {"retries": "3", "tenant": "a"}.items()


@pytest.mark.parametrize(("priority", "lost"), [(None, False), (4, False), (0, True), (9, True)])
def test_a_priority_that_not_every_queue_keeps_is_named(priority: int | None, lost: bool) -> None:
    decision = to_stomp(of_memory({}, priority=priority), priorities=False)
    assert ("the priority: not every queue there keeps it" in decision.losses) is lost


def test_what_letters_may_lose_that_nobody_saw_is_named() -> None:
    crossing = Crossing(CONVENTIONS, STOMP, replace(ACTIVEMQ, priorities=False), could=CAPABILITIES)
    shown = preview(PLAN, Browse([], complete=False, depth=9), CONVENTIONS, crossing)
    lost = [
        "types of headers: they become texts", "priorities above 9: they become 9",
        "priorities: not every queue there keeps them",
    ]  # fmt: skip
    assert [line for line in shown.lines() if "may be lost" in line] == [f"  may be lost by others: {x}" for x in lost]
    assert shown.document()["may_lose"] == lost
    assert preview(PLAN, Browse([], complete=True, depth=0), CONVENTIONS, crossing).limits == ()
    assert replace(crossing, can=CAPABILITIES).limits() == ()


def test_what_can_be_carried_loses_nothing() -> None:
    dead = of_memory(TYPED, priority=7, content_encoding="gzip", message_id="m", correlation_id="c", reply_to="answers")
    crossing = Crossing(CONVENTIONS, replace_of(CONVENTIONS), CAPABILITIES)
    decision = Decider(PLAN, CONVENTIONS, crossing).decide(dead)
    assert decision.losses == ()
    assert decision.replacement.types.items() >= header_types.to_texts(TYPED)[1].items()
    sent = decision.replacement.properties
    assert (sent.priority, sent.content_encoding, sent.message_id, sent.reply_to) == (7, "gzip", "m", "answers")


def test_what_amqp_cannot_hold_becomes_a_text_and_is_named() -> None:
    table = {
        "born": datetime(1969, 7, 20, 20, 17, 40, tzinfo=UTC), "due": datetime(2026, 1, 31, 3, 0, 0, 5, tzinfo=UTC),
        "price": Decimal("0.12345678901"), "parts": [datetime(1969, 1, 1, tzinfo=UTC)],
        "on": datetime(2026, 1, 31, tzinfo=UTC),
    }  # fmt: skip
    decision = Decider(PLAN, CONVENTIONS, Crossing(CONVENTIONS, AMQP, AMQP_CAPABILITIES)).decide(of_memory(table))
    assert decision.losses == (
        "the type time of the header born: it becomes a text",
        "the type time of the header due: it becomes a text",
        "the type decimal of the header price: it becomes a text",
        "the type json of the header parts: it becomes a text",
    )
    sent = to_fields(decision.replacement, "a").headers
    assert sent
    assert sent.items() >= {"born": "1969-07-20T20:17:40Z", "price": "0.12345678901", "on": table["on"]}.items()


@pytest.mark.parametrize(
    "table",
    [{"kafka_key": []}, {"kafka_key": 7}, {"kafka_key": None}, {"kafka_tombstone": "no"}, {"kafka_tombstone": False}],
    ids=str,
)
def test_what_kafka_would_take_for_a_part_of_the_record_stays_a_header(table: dict[str, object]) -> None:
    decision = Decider(PLAN, CONVENTIONS, Crossing(CONVENTIONS, KAFKA, KAFKA_CAPABILITIES)).decide(of_memory(table))
    [name] = table
    assert decision.losses == (f"the name of the header {name}: it becomes infertool_kept_{name}",)
    record = to_record(decision.replacement, "a")
    assert (record.key, record.value) == (None, b"{}")
    sent = decision.replacement
    theirs = header_types.from_texts(sent.headers, sent.types)
    assert theirs[f"infertool_kept_{name}"] == table[name]


@pytest.mark.parametrize(("address", "kept"), [("rep/3", "rep/3"), ("rep", "rep"), ("a b/3", None)])
def test_a_partition_for_replies_stays_between_clusters_of_kafka(address: str, kept: str | None) -> None:
    crossing = Crossing(KAFKA, KAFKA, KAFKA_CAPABILITIES)
    decision = Decider(PLAN, KAFKA, crossing).decide(of_memory({}, reply_to=address))
    assert decision.replacement.properties.reply_to == kept
    loss = "the address for replies: it belongs to a connection to the other broker"
    assert decision.losses == (() if kept else (loss,))


def test_the_time_of_an_event_stays_over_a_letter_with_a_time_of_its_own() -> None:
    dead = of_memory({}, timestamp_ms=-14_182_940_001)
    assert dead.headers["original_timestamp"] == "-14182940001"
    again = to_stomp(replace_time(dead, 1_700_000_000_000)).replacement
    assert again.headers["original_timestamp"] == "-14182940001"
    theirs = TypedMessage(
        "m:3", "dead", {"original_timestamp": "mine"}, b"{}", BodyKind.TEXT, False, 1, "t",
        known=Properties(timestamp_ms=1_700_000_000_123),
    )  # fmt: skip
    parked = unchanged(theirs, "parked", AMQP)
    moved = TypedMessage(
        "m:4", "parked", parked.headers, b"{}", BodyKind.TEXT, False, 1, "t",
        known=Properties(timestamp_ms=1_700_000_000_000),
    )  # fmt: skip
    again = to_stomp(moved, replace(PLAN, to="/queue/in")).replacement
    assert marks.ours(again.headers)["original_timestamp"] == "1700000000123"
    assert marks.producers(again.headers)["original_timestamp"] == "mine"


def test_a_letter_is_parked_with_the_time_of_its_move_where_retention_goes_by_it() -> None:
    old = replace_time(of_memory({}), 1_700_000_000_123)
    parked = unchanged(old, "parked", KAFKA)
    assert to_record(parked, "a").timestamp_ms is None
    assert parked.headers["infertool_own_original_timestamp"] == "1700000000123"
    assert unchanged(old, "parked", AMQP).properties.timestamp_ms == 1_700_000_000_123


def replace_time(came: Message, timestamp_ms: int) -> Message:
    """Return the letter as a broker delivers it that gives a message a time of its own."""
    return TypedMessage(
        came.id, came.source, came.native, came.body, came.kind, False, 1, "t",
        known=Properties(timestamp_ms=timestamp_ms), header_types=came.types,
    )  # fmt: skip


def replace_of(conventions: Any) -> Any:
    """Return the conventions of another broker of the same kind."""
    return type(conventions)()


def test_queues_are_spelt_in_the_other_brokers_way() -> None:
    decision = to_stomp(of_memory({"original_destination": "theirs"}, reply_to="answers"))
    sent = decision.replacement
    assert (sent.destination, sent.properties.reply_to) == ("/queue/in", "/queue/answers")
    assert marks.ours(sent.headers)["original_destination"] == "/queue/in"
    assert sent.headers["original_destination"] == "theirs"


def of_stomp(**headers: str) -> Message:
    event = message(source="/queue/a.b", given=headers)
    dead = dead_letter(event, CAUSE, "/queue/dead", STOMP)
    native = {**dead.headers, "priority": "4", "persistent": "true", **headers}
    return message(source="/queue/dead", given=native)


def from_stomp(came: Message) -> Decision:
    crossing = Crossing(STOMP, CONVENTIONS, CAPABILITIES)
    return Decider(replace(PLAN, queue="/queue/dead"), STOMP, crossing).decide(came)


def test_and_back() -> None:
    decision = from_stomp(of_stomp(tenant="a", timestamp="then", **{"reply-to": "/queue/answers"}))
    sent = decision.replacement
    assert (sent.destination, sent.properties.reply_to) == ("a.b", "answers")
    assert marks.ours(sent.headers)["original_destination"] == "a.b"
    # Under its own name again: this broker takes it.
    assert sent.headers.items() >= {"tenant": "a", "timestamp": "then"}.items()
    assert decision.losses == ()


def test_an_address_of_a_connection_is_left_out() -> None:
    decision = from_stomp(of_stomp(**{"reply-to": "/remote-temp-queue/ID:a-1"}))
    assert decision.replacement.properties.reply_to is None
    assert decision.losses == ("the address for replies: it belongs to a connection to the other broker",)


@pytest.mark.parametrize("origin", ["/topic/x", "temp-queue://ID:a", "/queue/a*b", "/queue/a/b"])
def test_an_origin_that_is_no_queue_there_stays_and_is_named(origin: str) -> None:
    came = of_stomp()
    native = {**came.native, "original_destination": origin}
    decision = from_stomp(message(source="/queue/dead", given=native))
    assert decision.fate is Fate.KEEP
    assert f"{origin!r} is not one queue; --to says where to" in decision.why


@pytest.mark.parametrize("table", [{f"h{n}": "x" for n in range(990)}, {"h": "x" * 20_000}], ids=["many", "long"])
def test_what_is_too_much_for_the_other_broker_stays_and_is_named(table: dict[str, object]) -> None:
    headers, _ = header_types.to_texts(table)
    came = TypedMessage("m:2", "dead", headers, b"{}", BodyKind.TEXT, False, 1, "t")
    decision = to_stomp(came, replace(PLAN, to="/queue/in"))
    assert (decision.fate, decision.why) == (
        Fate.KEEP, "it has more headers, or longer ones, than its target takes",
    )  # fmt: skip


def test_the_marks_of_the_brokers_own_dead_letters_stay_behind() -> None:
    marked = {"original-destination": "/queue/a.b", "originalExpiration": "0", "dlqDeliveryFailureCause": "expired"}
    decision = from_stomp(message(source="/queue/dead", tenant="a", given=marked))
    assert decision.replacement.destination == "a.b"
    assert not marked.keys() & decision.replacement.headers.keys()


def test_the_id_of_a_replay_is_the_same_for_each_delivery_of_its_letter() -> None:
    dead = of_memory({"n": 1})
    again = TypedMessage(
        dead.id, dead.source, dead.native, dead.body, dead.kind, True, 7, "t9",
        known=replace_known(dead, delivery_count=3), header_types=dead.types,
    )  # fmt: skip
    assert to_stomp(dead).replay_id == to_stomp(again).replay_id != to_stomp(of_memory({"n": 2})).replay_id


def replace_known(came: Message, **changes: Any) -> Properties:
    import msgspec

    return msgspec.structs.replace(came.properties, **changes)


def test_a_letter_that_cannot_be_parked_stays_and_says_why() -> None:
    dead = dead_letter(message(source="/queue/in"), CAUSE, "/queue/dead", STOMP)
    came = message(source="/queue/dead", given=dict(dead.headers))
    plan = replace(PLAN, queue="/queue/dead", max_replays=0, parking="/topic/parked")
    decision = Decider(plan, STOMP).decide(came)
    assert decision.fate is Fate.KEEP
    assert decision.why.startswith("it was replayed 0 times, and cannot be parked: '/topic/parked' is not one queue")
