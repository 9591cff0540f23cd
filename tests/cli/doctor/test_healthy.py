"""A set-up that is well: all checks pass, nothing is taken from the queues, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.examining import Examined
from infertool.message import Outgoing
from tests.cli.doctor.conftest import Doctor, Found
from tests.support.brokers import Server, new_queue, send_all, settings, take
from tests.support.hub import HubProcess
from tests.support.rabbitmq import RabbitMQ
from tests.support.rawamqp import RawAmqp, eventually

ADMIN = {"broker__user": "admin", "broker__password": "admin"}
BROKERS = [
    pytest.param("activemq", marks=pytest.mark.activemq),
    pytest.param("artemis", marks=pytest.mark.artemis),
    "embedded_broker",
]

# Checks that warn where a machine is slow.
TIMED = {"broker.round_trip", "phoenix.socket", "paths.disk"}


def wrong(found: Found) -> list[str]:
    """Return the checks that found something wrong, but for what a busy machine may bring about."""
    return found.named("fail") + [name for name in found.named("warn") if name not in TIMED]


@pytest.fixture(params=BROKERS)
def stomp(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(request.param)
    return server


def test_all_is_well_and_messages_stay(doctor: Doctor, stomp: Server, hub: HubProcess) -> None:
    queue, dlq = new_queue(), new_queue()
    broker = brokers.open(settings(stomp.url))
    broker.connect()
    try:
        send_all(broker, [Outgoing(queue, b"%d" % number) for number in range(3)])
        send_all(broker, [Outgoing(dlq, b"dead")])
        found = doctor(
            "--push", broker__url=stomp.url, broker__queue=queue, deadletter__queue=dlq, phoenix__url=hub.url, **ADMIN
        )
        assert (wrong(found), found.code) == ([], 0)
        assert found.of("broker.queue")["value"] == f"may consume {queue}"
        assert found.of("broker.dlq")["value"] == f"may send to {dlq}; 1 dead letter"
        assert found.of("broker.depth")["number"] == 3
        assert found.of("broker.depth")["value"].endswith(", 0 consumers")
        assert 0 < found.of("broker.round_trip")["number"] < 60
        assert found.of("broker.heartbeat")["status"] == "ok"
        assert "a new_result was confirmed by" in found.of("phoenix.confirm")["value"]
        assert found.of("phoenix.join")["value"].endswith("; takes batches of results")
        assert found.of("model.sample")["status"] == found.of("environment.clock")["status"] == "ok"
        subscription = broker.subscribe(queue, window=10)
        taken = take(subscription, 3)
        assert [message.body for message in taken] == [b"0", b"1", b"2"]
        assert not any(message.redelivered for message in taken)
        subscription.ack(taken)
    finally:
        broker.close(10)


@pytest.fixture
def own_vhost(rabbitmq: RabbitMQ) -> Iterator[RabbitMQ]:
    with rabbitmq.own_vhost() as own:
        yield own


@pytest.mark.rabbitmq
def test_all_is_well_with_rabbitmq(doctor: Doctor, own_vhost: RabbitMQ, hub: HubProcess) -> None:
    raw = RawAmqp(own_vhost)
    dlq = raw.queue({"x-queue-type": "quorum"})
    queue = raw.queue({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dlq, "x-queue-type": "quorum"})
    raw.send(queue, b"1", b"2")
    eventually(lambda: raw.waiting(queue) == 2)
    found = doctor(
        "--only", "broker,environment", broker__url=own_vhost.amqp_url, broker__queue=queue, deadletter__queue=dlq,
        broker__management_url=own_vhost.management_url, phoenix__url=hub.url, **ADMIN,
    )  # fmt: skip
    assert (wrong(found), found.code) == ([], 0)
    assert found.of("broker.login")["value"].startswith("RabbitMQ 3.")
    assert found.of("broker.queue")["value"] == f"may consume {queue}"
    assert found.of("broker.depth")["number"] == 2
    assert found.of("broker.policy")["value"].endswith(f"then to exchange (default), key {dlq}")
    assert found.of("broker.round_trip")["number"] > 0
    assert "the management API" in found.of("environment.clock")["value"]
    assert own_vhost.admin.queues() == {queue: "quorum", dlq: "quorum"}
    taken = raw.take(queue, 2)
    for method, properties, _ in taken:
        assert not method.redelivered
        assert not (properties.headers or {}).get("x-delivery-count")


@pytest.mark.rabbitmq
@pytest.mark.parametrize(
    ("rights", "failing"),
    [
        ((".*", ".*", ".*"), []),
        ((".*", ".*", "^amq\\.gen.*"), ["broker.queue"]),
        (("^amq\\.gen.*", "^$", ".*"), ["broker.dlq", "broker.round_trip"]),
    ],
)
def test_rights_on_rabbitmq(
    doctor: Doctor, rabbitmq: RabbitMQ, raw: RawAmqp, rights: tuple[str, ...], failing: list[Any]
) -> None:
    queue, dlq = raw.queue(), raw.queue()
    raw.send(queue, b"1")
    user = f"u{raw.name()}".replace(".", "-")
    with rabbitmq.admin.user(user, "Pass-word", rights):
        found = doctor(
            "--only", "broker", broker__url=rabbitmq.amqp_url, broker__queue=queue, deadletter__queue=dlq,
            broker__user=user, broker__password="Pass-word",
        )  # fmt: skip
    assert found.named("fail") == failing, found.document
    for name in set(failing) - {"broker.round_trip"}:
        assert "ACCESS_REFUSED" in found.of(name)["value"]
    method, _, _ = raw.take(queue, 1)[0]
    assert not method.redelivered


@pytest.mark.rabbitmq
def test_what_rabbitmq_does_not_tell_is_skipped_and_a_missing_queue_fails(
    doctor: Doctor, rabbitmq: RabbitMQ, raw: RawAmqp
) -> None:
    over_stomp = doctor("--only", "broker", broker__url=rabbitmq.url, **ADMIN)
    assert (wrong(over_stomp), over_stomp.code) == ([], 0)
    assert "use amqp://" in over_stomp.of("broker.queue")["value"]
    assert "only as replies" in over_stomp.of("broker.round_trip")["value"]
    queue = raw.name()
    missing = doctor("--only", "broker.queue", broker__url=rabbitmq.amqp_url, broker__queue=queue, **ADMIN)
    assert (missing.named("fail"), missing.of("broker.queue")["value"]) == (
        ["broker.queue"], f"there is no queue {queue}",
    )  # fmt: skip
    made = doctor(
        "--only", "broker.queue", broker__url=rabbitmq.amqp_url, broker__queue=queue, broker__declare="true", **ADMIN
    )
    assert made.of("broker.queue")["value"] == f"there is no queue {queue} yet; broker.declare has it made"
    assert queue not in rabbitmq.admin.queues()


def test_a_broker_in_the_process_has_less_to_check(doctor: Doctor) -> None:
    found = doctor("--only", "broker", broker__url="memory://healthy")
    assert (wrong(found), found.code) == ([], 0)
    assert found.of("broker.round_trip")["number"] > 0
    assert found.of("broker.queue")["value"] == "this kind of broker does not tell"


@pytest.mark.parametrize("stomp", ["embedded_broker"], indirect=True)
def test_the_adapter_offers_to_be_examined(stomp: Server) -> None:
    assert isinstance(brokers.open(settings(stomp.url)), Examined)
    assert not isinstance(brokers.open(settings("memory://unexamined")), Examined)
