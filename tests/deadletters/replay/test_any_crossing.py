"""Whatever a letter holds, on its way to another broker nothing of it is lost that is not named."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from infertool.brokers import header_types
from infertool.brokers.amqp import conventions as amqp_ways
from infertool.brokers.amqp import messages as amqp
from infertool.brokers.amqp import properties as amqp_properties
from infertool.brokers.kafka import conventions as kafka_ways
from infertool.brokers.kafka import messages as kafka
from infertool.brokers.memory import adapter as memory
from infertool.brokers.memory.queues import Stored
from infertool.brokers.memory.subscription import to_message as of_memory
from infertool.brokers.port import Capabilities, Conventions
from infertool.brokers.stomp import conventions as stomp_ways
from infertool.brokers.stomp.conventions import ACTIVEMQ as ACTIVEMQ_CAPABILITIES
from infertool.brokers.stomp.dialects import ACTIVEMQ
from infertool.brokers.stomp.frames import Frame
from infertool.brokers.stomp.messages import check as check_limits
from infertool.brokers.stomp.parser import FrameParser
from infertool.deadletters import letters, marks
from infertool.deadletters.record import dead_letter
from infertool.deadletters.replay.crossings import Crossing, replay_id
from infertool.deadletters.replay.decide import Decider, Fate
from infertool.deadletters.replay.sending import can_be_carried, staged, unchanged, unstaged
from infertool.embedded.broker import incoming
from infertool.errors import RefusedError
from infertool.message import Message, Outgoing
from tests.brokers.kafka.test_messages import _Record
from tests.brokers.test_any_message import BODIES, FIELDS, HEADERS, PAIRS, TIMES
from tests.brokers.test_header_types import like
from tests.deadletters.replay.test_crossing import CAUSE, PLAN
from tests.support.examples import examples

_numbers = itertools.count(1)


@dataclass
class _RecordOf(_Record):
    """A record of a topic."""

    of: str = "in"

    def topic(self) -> str:
        return self.of


def over_amqp(sent: Outgoing) -> Message:
    return amqp.to_message(
        b"\0" * 12 + amqp.encoded(amqp.to_fields(sent, "a"), "a"),
        sent.body,
        sent.destination,
        1,
        "t",
        redelivered=False,
    )


def over_kafka(sent: Outgoing) -> Message:
    record = kafka.to_record(sent, "a")
    came = _RecordOf(record.value, record.key, record.headers, (1, record.timestamp_ms or 1), record.topic)
    return kafka.to_message(came, partition=f"{record.topic}/1", epoch=1, redelivered=False)


def over_stomp(sent: Outgoing) -> Message:
    check_limits(sent, "a")
    [frame] = FrameParser().feed(ACTIVEMQ.send(sent, {}))
    # As ActiveMQ does, it ends the connection over what it cannot read.
    stored = incoming.to_message(frame, f"ID:{next(_numbers)}", 1_700_000_000_000)
    headers = {**stored.headers, "destination": sent.destination, "subscription": "1", "ack": "2"}
    return ACTIVEMQ.message(Frame("MESSAGE", headers, stored.body), sent.destination, 1)


def over_memory(sent: Outgoing) -> Message:
    number = next(_numbers)
    return of_memory(Stored(f"m:{number}", number, sent, number, number), sent.destination, 1, "t", memory.CAPABILITIES)


# Values that not every broker with types of headers has.
_FINE = st.datetimes(timezones=st.just(UTC)) | st.decimals(allow_nan=False, allow_infinity=False)
FINE = st.dictionaries(st.sampled_from(["due", "price", "type"]), _FINE | st.lists(_FINE, max_size=2), max_size=2)


def of_memory_table(fields: Any, fine: dict[str, Any], body: bytes) -> Message:
    headers, types = header_types.to_texts({**(fields.headers or {}), **fine})
    return over_memory(Outgoing("in", body, headers=headers, types=types))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of broker: how it carries a message, and a message of another program as it delivers that."""

    conventions: Conventions
    can: Capabilities
    carry: Callable[[Outgoing], Message]
    given: st.SearchStrategy[Message]


KINDS = {
    "amqp": Kind(
        amqp_ways.CONVENTIONS, amqp_ways.CAPABILITIES, over_amqp,
        st.builds(
            lambda fields, body: amqp.to_message(
                b"\0" * 12 + amqp_properties.encode(fields), body, "in", 1, "t", redelivered=False
            ),
            FIELDS, BODIES,
        ),
    ),
    "kafka": Kind(
        kafka_ways.CONVENTIONS, kafka_ways.CAPABILITIES, over_kafka,
        st.builds(
            lambda pairs, key, body, time: kafka.to_message(
                _RecordOf(body, key, pairs, time), partition="in/3", epoch=1, redelivered=False
            ),
            PAIRS, st.none() | st.binary(max_size=4), st.none() | BODIES, TIMES,
        ),
    ),
    "stomp": Kind(
        stomp_ways.CONVENTIONS, ACTIVEMQ_CAPABILITIES, over_stomp,
        st.builds(
            lambda headers, body: ACTIVEMQ.message(
                Frame("MESSAGE", {**headers, "message-id": f"ID:a:-1:1:{next(_numbers)}"}, body), "/queue/in", 1
            ),
            HEADERS, BODIES,
        ),
    ),
    "memory": Kind(
        memory.CONVENTIONS, memory.CAPABILITIES, over_memory, st.builds(of_memory_table, FIELDS, FINE, BODIES)
    ),
}  # fmt: skip


def theirs(message: Message, *, typed: bool, lost: Collection[str] = ()) -> Any:
    """Return the producer's headers, in the order of their names. Of Kafka's list of all headers nothing is asked.

    Those whose types are `lost` are texts.
    """
    headers = marks.producers(header_types.of(message))
    headers.pop(kafka_ways.ALL_HEADERS, None)
    tags = {name: tag for name, tag in header_types.tags(headers).items() if typed and name not in lost}
    return raw(header_types.from_texts(dict(sorted(headers.items())), tags))


def raw(value: Any) -> Any:
    """Return a value with bytes in place of texts that are no UTF-8: some brokers tell them apart, others do not."""
    match value:
        case str():
            data = value.encode("utf-8", "surrogateescape")
            return str(value) if value.isascii() or data.decode("utf-8", "ignore") == value else data
        case list():
            return [raw(each) for each in value]
        case dict():
            return {name: raw(each) for name, each in value.items()}
    return value


@pytest.mark.parametrize("there", KINDS)
@examples(40)
@given(data=st.data())
def test_nothing_is_lost_that_is_not_named(there: str, data: st.DataObject) -> None:
    source, target = KINDS[data.draw(st.sampled_from(sorted(KINDS)))], KINDS[there]
    came = data.draw(source.given)
    # What another program wrote as if it were infertool is not the producer's.
    assume(not (came.hides_body or marks.is_dead_letter(came.headers) or marks.is_replay(came.headers)))
    queue, elsewhere = source.conventions.queue("dead"), target.conventions.queue("alive")
    dead = source.carry(dead_letter(came, CAUSE, queue, source.conventions, atomic=source.can.atomic_move))
    if "dlq_headers_dropped" not in dead.headers:
        assert like(theirs(dead, typed=True), theirs(came, typed=True))
    crossing = Crossing(source.conventions, target.conventions, target.can, source.can)
    decision = Decider(replace(PLAN, queue=queue, to=elsewhere), source.conventions, crossing).decide(dead)
    if decision.fate is not Fate.REPLAY:
        assert decision.why
        return
    try:
        arrived = target.carry(decision.replacement)
    except RefusedError as refusal:
        # The letter stays, and this is told.
        event(refusal.reason)
        return
    assert (arrived.body, arrived.kind) == (came.body, came.kind)
    typed = target.can.header_types
    lost = {
        name.removeprefix(marks.KEPT)
        for name, tag in decision.replacement.types.items()
        if f"the type {tag} of the header {name}: it becomes a text" in decision.losses
    }
    assert like(theirs(arrived, typed=typed), theirs(dead, typed=typed, lost=lost))
    if came.properties.timestamp_ms is not None:
        assert marks.ours(arrived.headers)[marks.TIMESTAMP] == str(came.properties.timestamp_ms)


@pytest.mark.parametrize("here", [name for name, kind in KINDS.items() if not kind.can.log])
@examples(40)
@given(data=st.data())
def test_the_id_of_a_replay_stays_while_its_letter_waits_in_staging(here: str, data: st.DataObject) -> None:
    kind = KINDS[here]
    queue, atomic = kind.conventions.queue("dead"), kind.can.atomic_move
    came = data.draw(kind.given)
    assume(not came.hides_body)
    is_ours = data.draw(st.booleans())
    letter = dead_letter(came, CAUSE, queue, kind.conventions, atomic=atomic) if is_ours else None
    dead = kind.carry(letter or unchanged(came, queue, kind.conventions, atomic=atomic))
    assume(can_be_carried(dead, kind.conventions))
    try:
        waiting = kind.carry(staged(dead, f"{queue}.scan", kind.conventions, atomic=atomic))
        back = kind.carry(unstaged(waiting, queue, kind.conventions, atomic=atomic))
    except RefusedError as refusal:
        event(refusal.reason)
        return
    assert replay_id(letters.read(back)) == replay_id(letters.read(dead))
