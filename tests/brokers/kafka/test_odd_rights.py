"""Rights that are taken away from a running consumer, and given back: nothing is lost, and errors say what to do."""

from __future__ import annotations

import pytest

from infertool.errors import InfertoolError
from infertool.message import Message
from tests.support.kafka import Kafka
from tests.support.kafkamember import Member, TestClients, bodies, eventually, member
from tests.support.rawkafka import RawKafka

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("right", ["topic", "group"])
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_right_to_read_is_taken_away_and_given_back(
    kafka: Kafka, raw_kafka: RawKafka, protocol: str, right: str
) -> None:
    topic = raw_kafka.topic(1)
    guest = TestClients(kafka.address("SASL_PLAINTEXT"), kafka.client("SASL_PLAINTEXT", "guest"), protocol=protocol)
    raw_kafka.allow("guest", "READ", topic=topic)
    raw_kafka.allow("guest", "READ", group=topic)
    raw_kafka.send(topic, b"0", b"1", b"2", b"3")
    # Rights spread over a broker after they are given.
    eventually(lambda: joins(guest, topic))
    with member(guest, topic) as only:
        taken = only.take(4)
        only.ack(*taken[:2])
        eventually(lambda: 0 in (found := raw_kafka.committed(topic, topic)) and found[0].offset == 2)
        raw_kafka.forbid("guest", "READ", **{right: topic})
        raw_kafka.send(topic, b"4")
        eventually(lambda: f"({right.upper()}_AUTHORIZATION_FAILED)" in str(only.faults))
        assert "kafka-acls.sh --add" in str(only.faults[-1])
        assert topic in only.faults[-1].what
        raw_kafka.allow("guest", "READ", **{right: topic})
        # Where the partition was lost meanwhile, what was in work comes again. What was committed does not.
        held: list[Message] = taken[2:]

        def ended() -> bool:
            held.extend(only.subscription.receive(10, 0.1))
            only.ack(*held)
            return raw_kafka.committed(topic, topic)[0].offset == 5

        eventually(ended)
        assert set(bodies(held)) == {b"2", b"3", b"4"}


def joins(guest: TestClients, topic: str) -> bool:
    """Return True once a member can join."""
    try:
        Member(guest, topic).close()
    except InfertoolError:
        return False
    return True
