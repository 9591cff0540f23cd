"""Letters that move to another broker: confirmed there, then taken off here; what that one cannot carry is named."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers import header_types
from infertool.brokers.amqp.conventions import CAPABILITIES as AMQP_CAPABILITIES
from infertool.brokers.amqp.conventions import CONVENTIONS as AMQP
from infertool.brokers.amqp.messages import to_fields
from infertool.brokers.kafka.conventions import CAPABILITIES as KAFKA_CAPABILITIES
from infertool.brokers.kafka.conventions import CONVENTIONS as KAFKA
from infertool.brokers.kafka.messages import to_record
from infertool.brokers.memory.adapter import CAPABILITIES, CONVENTIONS
from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Server
from infertool.brokers.port import Broker, Browse
from infertool.brokers.stomp.conventions import ACTIVEMQ
from infertool.brokers.stomp.conventions import CONVENTIONS as STOMP
from infertool.cli.replay_dlq.view import preview
from infertool.deadletters import letters, marks
from infertool.deadletters.archive.journal import Journal
from infertool.deadletters.archive.restore import Restore, look
from infertool.deadletters.archive.writer import ArchiveWriter
from infertool.deadletters.record import Cause, dead_letter
from infertool.deadletters.replay import companions, take
from infertool.deadletters.replay import replay as replay_module
from infertool.deadletters.replay.crossings import Crossing
from infertool.deadletters.replay.decide import Decider, Decision, Fate, Plan
from infertool.deadletters.replay.progress import Tally
from infertool.deadletters.replay.replay import Replay
from infertool.deadletters.replay.sending import Sender, unchanged
from infertool.deadletters.replay.take import Bus
from infertool.errors import InfertoolError
from infertool.message import BodyKind, Message, Outgoing, Properties, TypedMessage
from infertool.settings.broker import BrokerSettings
from tests.brokers.conformance.test_6_content import TYPED
from tests.support.brokers import TIMEOUT_S
from tests.support.brokers import take as take_messages
from tests.support.messages import message

COUNT = 12
_numbers = itertools.count(1)
CAUSE = Cause("e", "", "infer", "E", "no", 1, "2026-01-01T00:00:01.000Z", "2026-01-01T00:00:00.000Z", "c", "m")
PLAN = Plan(queue="dead", run="r", began=0.0, depth=9)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (take, replay_module, companions):
        for name, value in {"QUIET_S": 0.1, "PATIENCE_S": 0.2, "_POLL_S": 0.005}.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


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


@dataclass
class Two:
    """Two brokers in process; the second has the letters' target."""

    here: Server
    there: Server

    def fill(self) -> None:
        """Have events fail here, as a consumer does."""
        broker = self.broker(self.here.url)
        subscription = broker.subscribe("in", window=COUNT)
        for n in range(COUNT):
            headers, types = header_types.to_texts({**TYPED, "event_id": f"e{n}"})
            self.here.send(Outgoing("in", b'{"n": %d}' % n, headers=headers, types=types))
        for each in take_messages(subscription, COUNT):
            self.here.send(self.dies(each, self.here))
            subscription.ack([each])
        broker.close(TIMEOUT_S)

    def dies(self, event: Message, server: Server) -> Outgoing:
        cause = replace(CAUSE, event_id=event.headers["event_id"])
        return dead_letter(event, cause, "dead", CONVENTIONS, atomic=server.capabilities.atomic_move)

    def move(self, there_url: str = "", here_url: str = "") -> Tally:
        here, there = self.broker(here_url or self.here.url), self.broker(there_url or self.there.url)
        stop = threading.Event()
        plan = Plan(queue="dead", run=f"run{next(_numbers)}", began=time.time(), depth=self.depth(), batch=5)
        url = here_url or self.here.url
        bus = Bus(lambda on_connection: brokers.open(settings(url), on_connection=on_connection), 0.3, _nothing)
        try:
            return Replay(bus, plan, stop=stop, broker=here, elsewhere=Sender(there, stop)).run()
        finally:
            here.close(TIMEOUT_S)
            there.close(TIMEOUT_S)

    def depth(self) -> int | None:
        depth = self.here.depth("dead")
        return depth.size if depth else None

    def broker(self, url: str) -> Broker:
        broker = brokers.open(settings(url))
        broker.connect()
        return broker


def settings(url: str) -> BrokerSettings:
    return BrokerSettings(url=url, receipt_timeout_s=0.3, reconnect_base_s=0.001, reconnect_max_s=0.01)


def _nothing(_event: object) -> None:
    pass


@pytest.fixture(params=[True, False], ids=["atomic", "not atomic"])
def two(request: pytest.FixtureRequest) -> Iterator[Two]:
    number = next(_numbers)
    can = replace(CAPABILITIES, atomic_move=request.param)
    with Server(f"here-{number}", can) as here, Server(f"there-{number}", can) as there:
        two = Two(here, there)
        two.fill()
        yield two


def ids(server: Server, queue: str) -> list[str]:
    return [stored.outgoing.headers["event_id"] for stored in server.held(queue)]


ALL = [f"e{n}" for n in range(COUNT)]


def test_letters_move_to_another_broker_with_their_types(two: Two) -> None:
    tally = two.move()
    assert (tally.replayed, tally.losses.total()) == (COUNT, 0)
    assert (ids(two.there, "in"), ids(two.here, "dead"), ids(two.here, "in")) == (ALL, [], [])
    for stored in two.there.held("in"):
        sent = stored.outgoing
        assert header_types.from_texts(sent.headers, sent.types).items() >= TYPED.items()


def test_a_broker_without_types_gets_texts_and_that_is_counted(two: Two) -> None:
    with Server(f"bare-{next(_numbers)}", replace(CAPABILITIES, header_types=False)) as bare:
        here, there = two.broker(two.here.url), two.broker(bare.url)
        plan = Plan(queue="dead", run="r", began=time.time(), depth=COUNT)
        crossing = Crossing(CONVENTIONS, CONVENTIONS, there.capabilities)
        shown = preview(plan, here.browse("dead", limit=100, timeout_s=TIMEOUT_S), CONVENTIONS, crossing)
        lost = "the type int of the header retries: it becomes a text"
        assert f"  lost: {COUNT}, {lost}" in shown.lines()
        assert shown.document()["losses"][lost] == COUNT
        assert two.move(bare.url).summary()["losses"][lost] == COUNT
        here.close(TIMEOUT_S)
        there.close(TIMEOUT_S)


Fault = Callable[[Two], tuple[str, str]]


def _confirmation_lost(two: Two) -> tuple[str, str]:
    address = two.there.new_address()
    address.faults.plan(Operation.SEND, Effect.CUT_AFTER, skip=2)
    return address.url, ""


def _ack_lost(two: Two) -> tuple[str, str]:
    address = two.here.new_address()
    for operation in (Operation.COMMIT, Operation.ACK):
        address.faults.plan(operation, Effect.CUT_BEFORE, skip=1)
    return "", address.url


@pytest.mark.parametrize("fault", [_confirmation_lost, _ack_lost])
def test_a_fault_in_between_leaves_at_most_a_double_with_one_replay_id(two: Two, fault: Fault) -> None:
    there_url, here_url = fault(two)
    two.move(there_url, here_url)
    assert (set(ids(two.there, "in")), ids(two.here, "dead")) == (set(ALL), [])
    sent = {(stored.outgoing.headers["event_id"], stored.outgoing.headers["replay_id"]) for stored in arrived(two)}
    assert len(sent) == COUNT


def arrived(two: Two) -> list[Any]:
    return two.there.held("in")


def test_a_run_that_is_killed_between_both_leaves_doubles_that_are_recognised(two: Two) -> None:
    """It had sent everything, and taken nothing off: the next run sends all again."""
    first = two.broker(two.here.url)
    stop = threading.Event()
    there = two.broker(two.there.url)
    crossing = Crossing(CONVENTIONS, CONVENTIONS, there.capabilities)
    decider = Decider(Plan(queue="dead", run="killed", began=0.0, depth=COUNT), CONVENTIONS, crossing)
    shown = first.browse("dead", limit=100, timeout_s=TIMEOUT_S).messages
    Sender(there, stop).send([decider.decide(each).replacement for each in shown])
    two.move()
    assert (sorted(ids(two.there, "in")), ids(two.here, "dead")) == (sorted(ALL * 2), [])
    pairs = {(stored.outgoing.headers["event_id"], stored.outgoing.headers["replay_id"]) for stored in arrived(two)}
    assert len(pairs) == COUNT
    # Both of each fail there: the tools there know that they are one.
    subscription = there.subscribe("in", window=100)
    for each in take_messages(subscription, 2 * COUNT):
        two.there.send(two.dies(each, two.there))
        subscription.ack([each])
    dead = there.browse("dead", limit=100, timeout_s=TIMEOUT_S)
    seen, doubles = letters.once([letters.read(each) for each in dead.messages])
    assert (len(seen), doubles) == (COUNT, COUNT)
    fates = [Decider(PLAN, CONVENTIONS).decide(each).fate for each in dead.messages]
    assert set(fates) == {Fate.REPLAY}
    decider = Decider(PLAN, CONVENTIONS)
    fates = [decider.decide(each).fate for each in dead.messages]
    assert (fates.count(Fate.REPLAY), fates.count(Fate.DOUBLE)) == (COUNT, COUNT)
    for broker in (first, there):
        broker.close(TIMEOUT_S)


def test_a_target_that_refuses_keeps_the_letters_here(two: Two) -> None:
    address = two.there.new_address()
    address.faults.plan(Operation.SEND, Effect.REFUSE, times=1)
    tally = two.move(address.url)
    assert (tally.replayed, len(ids(two.here, "dead")), len(arrived(two))) == (COUNT - 1, 1, COUNT - 1)


def test_an_archive_of_one_broker_is_sent_to_another(two: Two, tmp_path: Path) -> None:
    """The archive is the memory broker's; a broker without types gets it, and its names of queues are its own."""
    path = tmp_path / "dead.jsonl"
    here = two.broker(two.here.url)
    with ArchiveWriter(path) as writer:
        writer.append(here.browse("dead", limit=100, timeout_s=TIMEOUT_S).messages)
        writer.append([of_stomp(event_id="of-stomp")])
    here.close(TIMEOUT_S)
    plan = Plan(queue="dead", run="r", began=0.0, depth=None)
    with Server(f"bare-{next(_numbers)}", replace(CAPABILITIES, header_types=False)) as bare, Journal(path) as journal:
        found = look(path, plan, journal, STOMP, ACTIVEMQ)
        assert found.tally.targets == {"/queue/in": COUNT, "/queue/a.b": 1}
        assert found.tally.losses["the type int of the header retries: it becomes a text"] == COUNT
        there = two.broker(bare.url)
        tally = Restore(there, path, plan, journal, stop=threading.Event()).run()
        assert tally.targets == {"in": COUNT, "a.b": 1}
        assert tally.losses["the type int of the header retries: it becomes a text"] == COUNT
        assert (ids(bare, "in"), ids(bare, "a.b")) == (ALL, ["of-stomp"])
        there.close(TIMEOUT_S)


def test_a_run_without_a_target_is_an_error_before_anything_is_done(two: Two) -> None:
    two.there.stop()
    with pytest.raises(InfertoolError):
        two.move()
    assert ids(two.here, "dead") == ALL
