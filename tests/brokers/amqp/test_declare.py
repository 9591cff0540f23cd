"""How queues stand to what is asked for, told by the management API or by refused declarations; nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pytest

from infertool.brokers.amqp import declare
from infertool.brokers.amqp.declare import Kind, Mismatch, mismatch
from infertool.brokers.amqp.management import Management
from infertool.brokers.declaring import Difference, QueueSpec, QueueState, Standing
from infertool.errors import RefusedError
from tests.brokers.amqp.conftest import Open, facts_of
from tests.support.rabbitmq import RabbitMQ
from tests.support.rawamqp import TIMEOUT_S, RawAmqp, eventually

Ask = Callable[[Any], Any]
BEGIN = "PRECONDITION_FAILED - inequivalent arg"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'", Mismatch("durable", False)),
        (
            "'x-queue-type' for queue 'q' in vhost '/': received the value 'a' of type 'longstr' but current is none",
            Mismatch("x-queue-type", None),
        ),
        (
            "'x-message-ttl' for queue 'q' in vhost '/': received none but current is the value '60000' of type 'long'",
            Mismatch("x-message-ttl", 60000),
        ),
        ("'x-max-priority' for queue 'q' in vhost '/': received '5' but current is '9'", Mismatch("x-max-priority", 9)),
        (
            "'x-queue-type' for queue 'it's' in vhost 'v': received 'a' but current is 'b'",
            Mismatch("x-queue-type", "b"),
        ),
        (
            "'x-lazy' for queue 'q' in vhost '/': received none but current is the value 'true' of type 'bool'",
            Mismatch("x-lazy", True),
        ),
        ("'x-max-priority' for queue 'q' in vhost '/': received '5' but cur", None),
        ("'x-odd' for queue 'q' in vhost '/': received none but current is the value '[]' of type 'array'", None),
        ("'x-max-priority' for queue 'q' in vhost '/': received '5' but current is 'many'", None),
    ],
)
def test_what_a_refusal_tells(text: str, found: Mismatch | None) -> None:
    assert mismatch(f"{BEGIN} {text}", {"x-max-priority": 5}) == found


def test_another_refusal_tells_nothing() -> None:
    assert mismatch("PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'q' in vhost '/': \"odd\"", {}) is None


KINDS: dict[str, tuple[dict[str, Any], bool]] = {
    "classic": ({}, True),
    "told to be classic": ({"x-queue-type": "classic"}, True),
    "not durable": ({}, False),
    "with arguments": ({"x-message-ttl": 60000, "x-dead-letter-exchange": "", "x-max-priority": 5}, True),
    "with more arguments": (
        {"x-expires": 3_600_000, "x-max-length": 9, "x-overflow": "reject-publish", "x-single-active-consumer": True},
        True,
    ),
    "quorum": ({"x-queue-type": "quorum", "x-delivery-limit": 5, "x-max-length": 9}, True),
    "stream": ({"x-queue-type": "stream", "x-max-length-bytes": 1000}, True),
}


@pytest.fixture
def ask(open_broker: Open) -> Ask:
    return open_broker()._supervisor.connected().ask


@pytest.mark.rabbitmq
@pytest.mark.parametrize("kind", KINDS)
def test_the_type_of_a_queue_without_the_management_api(raw: RawAmqp, ask: Ask, kind: str) -> None:
    arguments, durable = KINDS[kind]
    queue = raw.queue(arguments, durable=durable)
    found = Kind(arguments.get("x-queue-type", "classic"), arguments.get("x-delivery-limit"))
    assert declare.kind(ask, queue) == found
    assert raw.waiting(queue) == 0


@pytest.mark.rabbitmq
def test_asking_for_a_type_makes_no_queue(raw: RawAmqp, ask: Ask) -> None:
    queue = raw.name()
    assert declare.kind(ask, queue) == Kind("")
    assert declare.waiting(ask, queue) is None


@pytest.mark.rabbitmq
def test_a_user_who_may_not_configure_is_told_no_type(raw: RawAmqp, rabbitmq: RabbitMQ, open_broker: Open) -> None:
    queue = raw.queue()
    with rabbitmq.admin.user("reader", "admin", ("^$", ".*", ".*")):
        broker = open_broker(asked=False, user="reader")
        assert declare.kind(broker._supervisor.connected().ask, queue) == Kind("")
        [state] = broker.declare([QueueSpec(name=queue)], timeout_s=TIMEOUT_S, create=True)
        assert (state.standing, len(state.notes)) == (Standing.EXISTS, 1)
        with pytest.raises(RefusedError, match="ACCESS_REFUSED"):
            broker.declare([QueueSpec(name=raw.name())], timeout_s=TIMEOUT_S, create=True)


class Declared(Protocol):
    """Tells how a queue stands to a spec."""

    def __call__(self, spec: QueueSpec, *, create: bool = False) -> QueueState: ...


@pytest.fixture(params=["management API", "refusals"])
def declared(request: pytest.FixtureRequest, open_broker: Open) -> Declared:
    """Return how a queue stands to a spec, asked for in both ways; with `create`, a missing one is made."""
    broker = open_broker(asked=request.param == "management API")

    def declared(spec: QueueSpec, *, create: bool = False) -> QueueState:
        [state] = broker.declare([spec], timeout_s=TIMEOUT_S, create=create)
        return state

    return declared


@pytest.mark.rabbitmq
def test_a_missing_queue_is_created_as_asked(raw: RawAmqp, declared: Declared) -> None:
    spec = QueueSpec(
        name=raw.name(), type="classic", max_priority=5, dead_letter_exchange="", dead_letter_routing_key="dlq"
    )
    for _ in range(2):
        assert declared(spec).standing is Standing.MISSING
    made = declared(spec, create=True)
    assert (made.standing, made.created) == (Standing.SAME, True)
    for create in (True, False):
        state = declared(spec, create=create)
        assert (state.standing, state.differences, state.notes, state.created) == (Standing.SAME, (), (), False)


@pytest.mark.rabbitmq
def test_a_quorum_queue_is_created_as_asked(raw: RawAmqp, declared: Declared) -> None:
    spec = QueueSpec(name=raw.name(), type="quorum", delivery_limit=7)
    assert declared(spec, create=True).created
    assert declared(spec).standing is Standing.SAME


@pytest.mark.rabbitmq
def test_each_argument_that_differs_is_named_and_nothing_is_changed(
    raw: RawAmqp, declared: Declared, management: Management
) -> None:
    has = {"x-max-priority": 9, "x-message-ttl": 60000}
    queue = raw.queue(has, durable=False)
    spec = QueueSpec(name=queue, type="classic", max_priority=5, dead_letter_exchange="dlx")
    for create in (False, True):
        state = declared(spec, create=create)
        assert state.standing is Standing.DIFFERS
        assert sorted(map(str, state.differences)) == [
            "durable is false, asked for is true",
            "x-dead-letter-exchange is none, asked for is dlx",
            "x-max-priority is 9, asked for is 5",
        ]
        assert state.notes == ("it also has x-message-ttl=60000",)
    assert facts_of(management, queue).arguments == has


@pytest.mark.rabbitmq
def test_a_queue_that_another_one_makes_at_the_same_time_is_compared(raw: RawAmqp, ask: Ask) -> None:
    spec = QueueSpec(name=raw.queue({"x-max-priority": 9}), max_priority=5)
    state = declare.create(ask, spec)
    assert (state.standing, state.created) == (Standing.DIFFERS, False)


@pytest.mark.rabbitmq
def test_another_type_is_a_difference(raw: RawAmqp, declared: Declared) -> None:
    quorum = raw.queue({"x-queue-type": "quorum"})
    assert declared(QueueSpec(name=quorum, type="classic")).differences == (
        Difference("x-queue-type", "classic", "quorum"),
    )
    classic = raw.queue()
    state = declared(QueueSpec(name=classic, type="quorum", delivery_limit=5))
    assert state.differences[0].argument == "x-queue-type"


@pytest.mark.rabbitmq
def test_what_nothing_is_asked_for_is_no_difference(raw: RawAmqp, declared: Declared) -> None:
    state = declared(QueueSpec(name=raw.queue({"x-queue-type": "quorum", "x-max-length": 5})))
    assert (state.standing, state.differences) == (Standing.SAME, ())
    assert any("x-max-length=5" in note for note in state.notes)


@pytest.mark.rabbitmq
def test_a_missing_dead_letter_exchange_is_told(raw: RawAmqp, declared: Declared) -> None:
    spec = QueueSpec(name=raw.name(), dead_letter_exchange="nowhere")
    for state in (declared(spec), declared(spec, create=True)):
        assert "no exchange nowhere" in state.notes[0]
    assert declared(QueueSpec(name=raw.name(), dead_letter_exchange="amq.direct")).notes == ()


@pytest.mark.rabbitmq
def test_what_a_policy_sets_is_as_asked(
    raw: RawAmqp, rabbitmq: RabbitMQ, management: Management, open_broker: Open
) -> None:
    queue = raw.queue()
    spec = QueueSpec(name=queue, dead_letter_exchange="amq.direct")
    with rabbitmq.admin.policy(queue, **{"dead-letter-exchange": "amq.direct"}):
        eventually(lambda: facts_of(management, queue).policy)
        [state] = open_broker().declare([spec], timeout_s=TIMEOUT_S, create=False)
        assert state.standing is Standing.SAME


@pytest.mark.rabbitmq
def test_what_the_broker_refuses_to_make_is_an_error(raw: RawAmqp, declared: Declared) -> None:
    with pytest.raises(RefusedError, match="invalid arg 'x-max-priority'"):
        declared(QueueSpec(name=raw.name(), type="quorum", max_priority=5), create=True)


@pytest.mark.rabbitmq
def test_a_queue_that_belongs_to_another_connection(raw: RawAmqp, declared: Declared) -> None:
    with raw.channel() as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        with pytest.raises(RefusedError, match="RESOURCE_LOCKED"):
            declared(QueueSpec(name=queue))
