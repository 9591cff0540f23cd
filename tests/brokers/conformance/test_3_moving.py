"""Moving between queues: never lost; never doubled where the broker can do it in one step."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from infertool.brokers.port import Broker, Move, Subscription
from infertool.deadletters.record import dlq_id
from infertool.errors import ConnectionLostError, MoveRefusedError, StaleMessagesError
from infertool.message import BodyKind, Message, Outgoing
from infertool.net.connection_state import ConnectionState
from tests.brokers.conformance.conftest import Verdict
from tests.brokers.conformance.cut import Cut
from tests.brokers.conformance.targets import Opened, Target
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, numbered, send_all, take, wait_for_depth

Content = Callable[[str], list[Message]]


def moved_to(queue: str, messages: Sequence[Message]) -> list[Move]:
    """Return moves that write what the consumer does: whoever moves gives a letter an id of its own."""
    return [
        Move(message, Outgoing(queue, message.body, message.kind, {"dlq_stage": "infer", "dlq_id": dlq_id(message)}))
        for message in messages
    ]


@pytest.fixture
def content(opened: Opened, connect: Connect) -> Content:
    """Return what empties a queue and returns the messages that waited."""

    def empty(queue: str) -> list[Message]:
        broker = connect(opened.url)
        found = rest(broker.subscribe(queue, window=1000), queue, broker)
        broker.close(TIMEOUT_S)
        return found

    return empty


def rest(subscription: Subscription, queue: str, other: Broker) -> list[Message]:
    """Return what the subscription still gets: a last message tells where it ends."""
    send_all(other, [Outgoing(queue, b"the end")])
    found: list[Message] = []
    while not any(message.body == b"the end" for message in found):
        found += take(subscription, 1)
    subscription.ack([message for message in found if message.body == b"the end"])
    return [message for message in found if message.body != b"the end"]


@pytest.mark.case("moved messages are there and not here")
@pytest.mark.parametrize("count", [1, 100, 350])
def test_moving(target: Target, broker: Broker, queue: str, count: int) -> None:
    send_all(broker, numbered(queue, count))
    subscription = broker.subscribe(queue, window=count)
    messages = take(subscription, count)
    subscription.move(moved_to(f"{queue}.dlq", messages), TIMEOUT_S)
    if target.offers(broker, "depth"):
        wait_for_depth(broker, queue, size=0)
    found = take(broker.subscribe(f"{queue}.dlq", window=count), count)
    assert [message.body for message in found] == [message.body for message in messages]
    assert {(m.kind, m.headers["dlq_stage"], m.properties.persistent) for m in found} == {
        (BodyKind.TEXT, "infer", True)
    }


@pytest.mark.case("a message is taken off without another, or for two others")
def test_moves_without_and_with_two(broker: Broker, queue: str, content: Content) -> None:
    send_all(broker, numbered(queue, 3))
    subscription = broker.subscribe(queue, window=10)
    first, second, third = take(subscription, 3)
    subscription.move([Move(first, None)], TIMEOUT_S)
    subscription.move([Move(second, Outgoing(f"{queue}.a", b"2a"), Outgoing(f"{queue}.b", b"2b"))], TIMEOUT_S)
    subscription.move([Move(third, None)], TIMEOUT_S)
    assert rest(subscription, queue, broker) == []
    assert [message.body for message in content(f"{queue}.a")] == [b"2a"]
    assert [message.body for message in content(f"{queue}.b")] == [b"2b"]


@pytest.mark.case("moves that overlap are done in their order")
def test_moves_that_overlap(broker: Broker, queue: str, content: Content) -> None:
    send_all(broker, numbered(queue, 40))
    subscription = broker.subscribe(queue, window=40)
    moves = moved_to(f"{queue}.dlq", take(subscription, 40))
    first = subscription.start_move(moves[:20], TIMEOUT_S)
    first.commit()
    second = subscription.start_move(moves[20:], TIMEOUT_S)
    first.wait()
    second.commit()
    second.wait()
    assert [message.body for message in content(f"{queue}.dlq")] == [move.message.body for move in moves]


@pytest.mark.case("moves from many threads")
def test_moves_from_many_threads(target: Target, broker: Broker, queue: str) -> None:
    send_all(broker, numbered(queue, 60))
    subscription = broker.subscribe(queue, window=60)
    with ThreadPoolExecutor(6) as pool:
        moves = [[move] for move in moved_to(f"{queue}.dlq", take(subscription, 60))]
        list(pool.map(lambda move: subscription.move(move, TIMEOUT_S), moves))
    bodies = {message.body for message in take(broker.subscribe(f"{queue}.dlq", window=100), 60)}
    assert len(bodies) == 60
    if target.offers(broker, "depth"):
        wait_for_depth(broker, queue, size=0)


def refuse_send(move: Move, opened: Opened) -> Move:
    return Move(move.message, Outgoing(opened.refused_queue, b"{}"))


def refuse_ack(move: Move, opened: Opened) -> Move:
    fields = {name for name in ("token", "offset") if name in type(move.message).__struct_fields__}
    spoilt = {"token": "999999", "offset": 999999}
    return Move(msgspec.structs.replace(move.message, **{name: spoilt[name] for name in fields}), move.outgoing)


@pytest.mark.case("a refused move acks nothing, and its messages come again")
@pytest.mark.parametrize("spoil", [refuse_send, refuse_ack])
def test_a_refused_move(
    target: Target,
    opened: Opened,
    connect: Connect,
    links: Links,
    new_queue: Callable[[], str],
    content: Content,
    spoil: Callable[[Move, Opened], Move],
    verdict: Verdict,
) -> None:
    broker, queue = connect(opened.url, links), new_queue()
    send_all(broker, numbered(queue, 5))
    subscription = broker.subscribe(queue, window=50)
    messages = take(subscription, 5)
    moves = moved_to(f"{queue}.dlq", messages)
    moves[2] = spoil(moves[2], opened)
    if broker.capabilities.log and spoil is refuse_ack:
        with pytest.raises(StaleMessagesError):
            subscription.move(moves, TIMEOUT_S)
        assert content(f"{queue}.dlq") == []
        verdict("what is sent stays; again with the same `dlq_id`")
        return
    with pytest.raises(MoveRefusedError) as caught:
        subscription.move(moves, TIMEOUT_S)
    assert caught.value.reason
    assert "\n" not in str(caught.value)
    given_back = target.gives_back and spoil is refuse_send
    if not given_back:
        links.wait_for(ConnectionState.CONNECTED, 2)
    # A share group gives a consumer nothing more before all that it has is settled.
    all_come = target.shares or given_back
    again = take(subscription, 5) if all_come else rest(subscription, queue, connect(opened.url))
    bodies = {message.body for message in messages}
    # In which order a broker gives back what a transaction held is not promised.
    if broker.capabilities.atomic_move or spoil is refuse_send:
        assert {message.body for message in again} == bodies
    else:
        assert messages[2].body in {message.body for message in again} <= bodies
    assert not target.marks_redeliveries or all(message.redelivered for message in again)
    if given_back:
        assert links.of(ConnectionState.LOST) == []
    else:
        assert all(message.epoch > messages[0].epoch for message in again)
        assert "refused" in links.of(ConnectionState.LOST)[0].reason
    # There, both stand for the same places in the log, or the same deliveries.
    if not (broker.capabilities.log or (given_back and target.sends_apart)):
        with pytest.raises(StaleMessagesError):
            subscription.move(moved_to(f"{queue}.dlq", messages), TIMEOUT_S)
    subscription.move(moved_to(f"{queue}.dlq", again), TIMEOUT_S)
    letters = content(f"{queue}.dlq")
    if broker.capabilities.atomic_move:
        assert sorted(letter.body for letter in letters) == sorted(bodies)
        return
    assert {letter.body for letter in letters} >= bodies
    assert len({letter.headers["dlq_id"] for letter in letters}) == 5
    verdict("what is sent stays; again with the same `dlq_id`")


TWICE = "sent twice, with one `dlq_id`"
EITHER = f"all of it, or {TWICE}"


@pytest.mark.case("a move that is cut {point}")
@pytest.mark.parametrize("point", list(Cut))
def test_a_move_that_is_cut(
    target: Target,
    opened: Opened,
    connect: Connect,
    links: Links,
    new_queue: Callable[[], str],
    content: Content,
    point: Cut,
    verdict: Verdict,
) -> None:
    queue, other = new_queue(), connect(opened.url)
    with opened.cutting_line(point) as url:
        broker = connect(url, links)
        send_all(other, numbered(queue, 5))
        subscription = broker.subscribe(queue, window=50)
        messages = take(subscription, 5)
        # A cut that comes after the last step leaves nothing to tell.
        with contextlib.suppress(ConnectionLostError):
            subscription.move(moved_to(f"{queue}.dlq", messages), TIMEOUT_S)
        is_apart = target.sends_apart and point in {Cut.BEFORE_SENDS, Cut.AFTER_SENDS}
        if not (broker.capabilities.log or is_apart):
            # Where it is one, the client library repeats what was cut, and tells nobody.
            links.wait_for(ConnectionState.CONNECTED, 2)
        again = rest(subscription, queue, other)
        letters = content(f"{queue}.dlq")
        if broker.capabilities.atomic_move:
            if not letters:
                # The broker may see the end of the old connection after it has delivered on the new one.
                again += take(subscription, 5 - len(again))
            assert (len(letters), len(again)) in {(5, 0), (0, 5)}
            verdict("all of it" if letters else "nothing of it")
        else:
            found = finish(subscription, queue, content, messages, again, letters)
            # Whether the broker handles acks that arrive with the end of their connection is a matter of moments.
            verdict(EITHER if point is Cut.AFTER_END and not broker.capabilities.log else found)
        broker.close(TIMEOUT_S)


def finish(
    subscription: Subscription,
    queue: str,
    content: Content,
    messages: Sequence[Message],
    again: list[Message],
    letters: list[Message],
) -> str:
    """Move what came again, and check that nothing is lost and that doubles are recognised."""
    sent_before = len(letters)
    assert {each.body for each in (*letters, *again)} == {message.body for message in messages}
    if again:
        subscription.move(moved_to(f"{queue}.dlq", again), TIMEOUT_S)
        letters += content(f"{queue}.dlq")
    ids = {(letter.body, letter.headers["dlq_id"]) for letter in letters}
    assert len(ids) == len({dlq_id for _, dlq_id in ids}) == len(messages)
    if len(letters) > len(messages):
        return TWICE
    return "all of it" if sent_before else "nothing of it"


@pytest.mark.case("a move without an answer ends in time, and its messages come again")
def test_a_move_without_an_answer(opened: Opened, connect: Connect, new_queue: Callable[[], str]) -> None:
    queue = new_queue()
    with opened.line() as line:
        broker = connect(line.url)
        send_all(broker, numbered(queue, 3))
        subscription = broker.subscribe(queue, window=3)
        messages = take(subscription, 3)
        line.stall()
        with pytest.raises(ConnectionLostError, match=r"receipt|in time"):
            subscription.move(moved_to(f"{queue}.dlq", messages), 0.2)
        line.resume()
        assert len(take(subscription, 3)) == 3
        broker.close(TIMEOUT_S)


@pytest.mark.case("messages of an earlier connection are not moved")
def test_a_stale_move(
    target: Target,
    opened: Opened,
    connect: Connect,
    links: Links,
    new_queue: Callable[[], str],
    content: Content,
    verdict: Verdict,
) -> None:
    queue = new_queue()
    with opened.line() as line:
        broker = connect(line.url, links)
        send_all(broker, numbered(queue, 4))
        subscription = broker.subscribe(queue, window=4)
        stale = take(subscription, 4)
        line.cut()
        links.wait_for(ConnectionState.CONNECTED, 2)
        if broker.capabilities.log:
            subscription.move(moved_to(f"{queue}.dlq", stale), TIMEOUT_S)
            assert [message.body for message in content(f"{queue}.dlq")] == [message.body for message in stale]
            kept = "the lock lasts" if target.shares else "the group has not given the partition to another consumer"
            verdict(f"no: they are moved, while {kept}")
            broker.close(TIMEOUT_S)
            return
        fresh = take(subscription, 4)
        for messages in (stale, [*fresh[:2], *stale[2:]]):
            with pytest.raises(StaleMessagesError):
                subscription.move(moved_to(f"{queue}.dlq", messages), TIMEOUT_S)
        assert content(f"{queue}.dlq") == []
        broker.close(TIMEOUT_S)


@pytest.mark.case("a cut while a move waits for its answer")
def test_a_cut_while_a_move_waits(
    opened: Opened, connect: Connect, links: Links, new_queue: Callable[[], str], content: Content
) -> None:
    queue = new_queue()
    with opened.line() as line:
        broker = connect(line.url, links, receipt_timeout_s=20.0)
        send_all(broker, numbered(queue, 10))
        subscription = broker.subscribe(queue, window=10)
        messages = take(subscription, 10)
        line.stall()
        outcome = []

        def move() -> None:
            with pytest.raises(ConnectionLostError) as caught:
                subscription.move(moved_to(f"{queue}.dlq", messages), TIMEOUT_S)
            outcome.append(caught.value)

        mover = threading.Thread(target=move)
        mover.start()
        assert line.holding.wait(TIMEOUT_S)
        line.cut()
        line.resume()
        mover.join(TIMEOUT_S)
        assert outcome[0].address == broker.address
        again = take(subscription, 10)
        assert [message.body for message in again] == [message.body for message in messages]
        assert content(f"{queue}.dlq") == []
        broker.close(TIMEOUT_S)
