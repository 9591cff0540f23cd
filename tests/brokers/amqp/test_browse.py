"""Looks at queues: what they show, and that they do no harm to a classic queue, a quorum queue or a stream."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, Protocol

import pytest
from pika import spec

from infertool.brokers.amqp import browse as module
from infertool.brokers.amqp.management import Management
from infertool.brokers.port import Broker, Browse
from infertool.errors import BrowseRefusedError, ConnectionLostError, RefusedError
from tests.brokers.amqp.conftest import Open, facts_of
from tests.support.amqpproxy import AmqpFrameProxy, method
from tests.support.rabbitmq import RabbitMQ
from tests.support.rawamqp import TIMEOUT_S, RawAmqp, eventually

pytestmark = pytest.mark.rabbitmq

QUORUM = {"x-queue-type": "quorum"}
LIMITED = {**QUORUM, "x-delivery-limit": 5}
BODIES = [b"%d" % number for number in range(6)]


class Look(Protocol):
    """Looks at a queue, with or without what the management API tells of it."""

    def __call__(
        self, queue: str, *, limit: int = 100, asked: bool = True, counted: bool = False, user: str = "admin"
    ) -> Browse: ...


ThirdGet = Callable[[bytes | None], Broker]


@pytest.fixture
def look(open_broker: Open) -> Look:
    """Look at a queue, with or without what the management API tells of it."""

    def look(queue: str, *, limit: int = 100, asked: bool = True, counted: bool = False, user: str = "admin") -> Browse:
        broker = open_broker(asked=asked, counted_browse=counted, user=user)
        return broker.browse(queue, limit=limit, timeout_s=TIMEOUT_S)

    return look


def bodies(browse: Browse) -> list[bytes]:
    return [message.body for message in browse.messages]


def counts(raw: RawAmqp, queue: str, count: int) -> list[tuple[bytes, int]]:
    """Take all messages; return the body of each and how often it was delivered before."""
    taken = raw.take(queue, count)
    return [(body, (properties.headers or {}).get("x-delivery-count", 0)) for _, properties, body in taken]


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(
    "arguments", [{}, {"x-queue-type": "classic"}, {"x-max-length": 100, "x-dead-letter-exchange": ""}]
)
def test_a_classic_queue_is_shown_and_left_as_it_was(
    raw: RawAmqp, look: Look, arguments: dict[str, Any], asked: bool
) -> None:
    queue = raw.queue(arguments)
    raw.send(queue, *BODIES)
    for _ in range(3):
        shown = look(queue, asked=asked)
        assert (bodies(shown), shown.complete, shown.depth, shown.note) == (BODIES, True, 6, "")
    part = look(queue, asked=asked, limit=2)
    assert (bodies(part), part.complete, part.depth) == (BODIES[:2], False, 6)
    assert raw.waiting(queue) == 6
    taken = raw.take(queue, 6)
    assert [body for _, _, body in taken] == BODIES
    # What a look cannot avoid.
    assert all(method.redelivered for method, _, _ in taken)


def test_a_queue_that_is_not_durable_and_one_with_priorities(raw: RawAmqp, look: Look) -> None:
    queue = raw.queue({"x-max-priority": 3}, durable=False)
    for priority, body in enumerate(BODIES[:3]):
        raw.send(queue, body, priority=priority)
    for _ in range(2):
        assert bodies(look(queue, asked=False)) == [b"2", b"1", b"0"]
    assert [body for _, _, body in raw.take(queue, 3)] == [b"2", b"1", b"0"]


def test_a_full_queue_that_drops_the_oldest_drops_no_more_than_without_a_look(
    raw: RawAmqp, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages come while the look holds all others: what is given back goes before them, and is dropped first."""
    queue = raw.queue({"x-max-length": 6})
    raw.send(queue, *BODIES)
    get = module._Looking.get
    sent: list[bytes] = []

    def get_and_send(channel: module._Looking, **options: Any) -> Any:
        shown = get(channel, **options)
        raw.send(queue, b"new")
        sent.append(b"new")
        return shown

    monkeypatch.setattr(module._Looking, "get", get_and_send)
    assert bodies(look(queue)) == BODIES
    assert sent
    eventually(lambda: raw.waiting(queue) == 6)
    assert [body for _, _, body in raw.take(queue, 6)] == [*BODIES[1:], b"new"]


@pytest.mark.parametrize("asked", [True, False])
def test_an_empty_queue_and_one_that_is_not_there(raw: RawAmqp, look: Look, asked: bool) -> None:
    empty = look(raw.queue(), asked=asked)
    assert (empty.messages, empty.complete, empty.depth) == ([], True, 0)
    missing = look(raw.name(), asked=asked)
    assert (missing.messages, missing.complete, missing.depth) == ([], False, None)


def test_what_consumers_hold_is_not_shown_and_that_is_said(raw: RawAmqp, look: Look) -> None:
    queue = raw.queue()
    raw.send(queue, *BODIES)
    with raw.channel() as channel:
        channel.basic_qos(prefetch_count=2)
        channel.basic_consume(queue, lambda *_: None)
        channel.connection.process_data_events(0)
        eventually(lambda: raw.waiting(queue) == 4)
        shown = look(queue, asked=False)
        assert bodies(shown) == BODIES[2:]
        assert not shown.complete
        assert "what its consumer holds" in shown.note


def test_no_look_at_a_quorum_queue_without_its_limit_known(raw: RawAmqp, look: Look) -> None:
    queue = raw.queue(QUORUM)
    raw.send(queue, *BODIES)
    with pytest.raises(BrowseRefusedError, match=r"does not tell.*set broker\.management_url"):
        look(queue, asked=False)
    assert counts(raw, queue, 6) == [(body, 0) for body in BODIES]


@pytest.mark.parametrize(("limit", "looks"), [(None, 10), (4, 2)])
def test_a_look_without_the_api_that_was_asked_for_goes_by_the_arguments(
    raw: RawAmqp, look: Look, limit: int | None, looks: int
) -> None:
    queue = raw.queue({**QUORUM, **({} if limit is None else {"x-delivery-limit": limit})})
    raw.send(queue, *BODIES)
    for _ in range(looks):
        assert bodies(look(queue, asked=False, counted=True)) == BODIES
    shown = look(queue, asked=False, counted=True)
    assert len(shown.messages) == 1
    assert f"allows {limit or 20}, or another number by a policy" in shown.note
    assert f"came {looks + 1} times" in shown.note


def test_a_quorum_queue_without_a_limit_is_shown_and_the_count_is_told(raw: RawAmqp, look: Look) -> None:
    queue = raw.queue(QUORUM)
    raw.send(queue, *BODIES)
    for _ in range(2):
        shown = look(queue)
        assert (bodies(shown), shown.complete, shown.depth) == (BODIES, True, 6)
        assert "counts as a delivery; this queue allows any number" in shown.note
    assert counts(raw, queue, 6) == [(body, 2) for body in BODIES]


@pytest.mark.parametrize("policy", [False, True])
def test_a_quorum_queue_with_a_limit_is_not_touched_unless_asked_for(
    raw: RawAmqp, rabbitmq: RabbitMQ, management: Management, look: Look, policy: bool
) -> None:
    queue = raw.queue(QUORUM if policy else LIMITED)
    raw.send(queue, *BODIES)
    with rabbitmq.admin.policy(queue, **{"delivery-limit": 5}) if policy else nullcontext():
        eventually(lambda: facts_of(management, queue).delivery_limit == 5)
        for _ in range(8):
            with pytest.raises(BrowseRefusedError, match=r"allows 5; .*--force"):
                look(queue)
    assert counts(raw, queue, 6) == [(body, 0) for body in BODIES]


def test_a_look_that_was_asked_for_ends_at_half_of_the_limit(raw: RawAmqp, look: Look) -> None:
    queue = raw.queue(LIMITED)
    raw.send(queue, *BODIES)
    for _ in range(2):
        shown = look(queue, counted=True)
        assert (bodies(shown), shown.complete) == (BODIES, True)
        assert "allows 5" in shown.note
    shown = look(queue, counted=True)
    assert (bodies(shown), shown.complete, shown.depth) == (BODIES[:1], False, 6)
    assert "the last one shown came 3 times, so it ends there: do not look again" in shown.note
    assert sorted(counts(raw, queue, 6)) == [(BODIES[0], 3), *[(body, 2) for body in BODIES[1:]]]


def test_a_quorum_queue_with_a_single_active_consumer_is_refused_by_the_broker(raw: RawAmqp, look: Look) -> None:
    queue = raw.queue({**QUORUM, "x-single-active-consumer": True})
    raw.send(queue, *BODIES)
    with pytest.raises(BrowseRefusedError, match="RESOURCE_LOCKED"):
        look(queue)


@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_is_read_from_its_start(raw: RawAmqp, look: Look, asked: bool) -> None:
    queue = raw.queue({"x-queue-type": "stream"})
    raw.send(queue, *BODIES)
    for limit, shown in ((100, BODIES), (2, BODIES[:2])):
        seen = look(queue, asked=asked, limit=limit)
        assert (bodies(seen), seen.complete, seen.depth) == (shown, False, None)


def test_a_user_who_may_not_read(raw: RawAmqp, rabbitmq: RabbitMQ, look: Look) -> None:
    queue = raw.queue()
    raw.send(queue, *BODIES)
    with (
        rabbitmq.admin.user("writer", "admin", (".*", ".*", "^$")),
        pytest.raises(BrowseRefusedError, match="ACCESS_REFUSED"),
    ):
        look(queue, user="writer")


def test_a_user_who_is_not_told_the_type(raw: RawAmqp, rabbitmq: RabbitMQ, look: Look) -> None:
    queue = raw.queue()
    raw.send(queue, *BODIES)
    rights = ("^$", "^$", ".*")
    with rabbitmq.admin.user("only-reads", "admin", rights):
        with pytest.raises(BrowseRefusedError, match="does not tell this user its type"):
            look(queue, user="only-reads", asked=False)
        rabbitmq.admin.add_user("only-reads", "admin", rights, tags="management")
        assert bodies(look(queue, user="only-reads")) == BODIES


def test_a_queue_that_belongs_to_another_connection(raw: RawAmqp, look: Look) -> None:
    with raw.channel() as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        with pytest.raises(RefusedError, match="RESOURCE_LOCKED"):
            look(queue, asked=False)


def test_a_look_holds_no_more_bytes_than_it_may(raw: RawAmqp, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BROWSED_BYTES", 3)
    queue = raw.queue()
    raw.send(queue, *BODIES)
    shown = look(queue)
    assert (bodies(shown), shown.complete, shown.depth) == (BODIES[:3], False, 6)


@pytest.fixture
def third_get(raw: RawAmqp, open_broker: Open) -> Iterator[ThirdGet]:
    """Return a broker, without the management API, on whose line something happens to the third message that is got."""
    opened = []

    def third_get(becomes: bytes | None) -> Broker:
        asked = itertools.count(1)

        def hook(frame: bytes) -> bytes | None:
            return becomes if method(frame) == spec.Basic.Get.INDEX and next(asked) == 3 else frame

        opened.append(AmqpFrameProxy(raw.server.amqp_port, to_server=hook).__enter__())
        return open_broker(asked=False, url=opened[-1].url)

    yield third_get
    for proxy in opened:
        proxy.__exit__()


def test_a_look_that_is_cut_is_an_error_and_gives_all_back(raw: RawAmqp, third_get: ThirdGet) -> None:
    queue = raw.queue()
    raw.send(queue, *BODIES)
    with pytest.raises(ConnectionLostError):
        third_get(None).browse(queue, limit=10, timeout_s=TIMEOUT_S)
    eventually(lambda: raw.waiting(queue) == 6)
    assert [body for _, _, body in raw.take(queue, 6)] == BODIES


def test_a_look_that_stalls_shows_what_came_and_the_connection_lives(raw: RawAmqp, third_get: ThirdGet) -> None:
    queue = raw.queue()
    raw.send(queue, *BODIES)
    broker = third_get(b"")
    shown = broker.browse(queue, limit=10, timeout_s=8.0)
    assert (bodies(shown), shown.complete, shown.depth) == (BODIES[:2], False, 6)
    eventually(lambda: raw.waiting(queue) == 6)
    assert bodies(broker.browse(queue, limit=10, timeout_s=TIMEOUT_S)) == BODIES
    assert [body for _, _, body in raw.take(queue, 6)] == BODIES
