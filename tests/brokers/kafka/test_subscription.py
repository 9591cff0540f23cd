"""A subscription: what is settled stays settled, over restarts and kills, and the rest comes again."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import TopicPartition

from infertool.brokers.kafka.assignment import Order
from infertool.brokers.kafka.metadata import NOTHING, decode
from infertool.brokers.partitioned import Partitioned, PassesOver
from infertool.brokers.port import Move
from infertool.errors import ConnectionLostError, MoveRefusedError, RefusedError, StaleMessagesError, UnroutableError
from infertool.message import Message, Outgoing
from tests.support.kafkamember import Member, RealCluster, TestClients, bodies, eventually, member
from tests.support.rawkafka import RawKafka

pytestmark = pytest.mark.kafka


@pytest.fixture
def cluster(raw_kafka: RawKafka) -> RealCluster:
    return RealCluster(raw_kafka)


@pytest.fixture
def topic(cluster: RealCluster) -> str:
    return cluster.topic()


@pytest.fixture
def clients(cluster: RealCluster) -> TestClients:
    return TestClients(cluster.address)


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


def test_a_restart_repeats_only_what_was_in_work(cluster: RealCluster, clients: TestClients, topic: str) -> None:
    cluster.send(topic, *numbered(200))
    with member(clients, topic) as first:
        assert isinstance(first.subscription, Partitioned)
        messages = first.take(150)
        assert bodies(messages) == numbered(150)
        assert {(each.source, each.partition, each.epoch) for each in messages} == {
            (topic, f"{topic}/0", messages[0].epoch)
        }
        assert [messages[7].id, messages[7].token] == [f"{topic}/0/7", "7"]
        assert not any(each.redelivered for each in messages)
        first.ack(*messages[1:100:2])
        assert first.subscription.figures().in_work == 100
        assert first.subscription.figures().gap == 100
    assert cluster.committed(topic, topic)[0] == 0
    with member(clients, topic) as second:
        again = second.take(150)
        left = [*range(0, 100, 2), *range(100, 200)]
        assert [int(each.token) for each in again] == left
        # Those that nobody had begun are new ones.
        assert [each.redelivered for each in again] == [int(each.token) < 150 for each in again]
        second.ack(*again)
    assert cluster.committed(topic, topic) == (200, "infertool/1 200")


def test_what_was_paused_for_want_of_room_comes_once_and_in_order(
    cluster: RealCluster, clients: TestClients, topic: str
) -> None:
    cluster.send(topic, *numbered(3000))
    with member(clients, topic, window=50) as only:
        taken: list[Message] = []
        while len(taken) < 3000:
            if len(taken) < 2000:
                # Nobody takes any until no more may wait.
                eventually(lambda: all(each.is_paused for each in only.subscription._deliveries.assigned))
            taken += only.take(50)
            only.ack(*taken[-50:])
    assert bodies(taken) == numbered(3000)


def is_done(metadata: str, offset: int) -> bool:
    """Return True if what a commit carries tells that an event is done."""
    progress = decode(metadata)
    return progress is not None and progress.is_done(offset)


def test_a_killed_process_repeats_what_no_commit_tells_of(
    cluster: RealCluster, clients: TestClients, topic: str
) -> None:
    cluster.send(topic, *numbered(100))
    first = Member(clients, topic, window=10)
    early = first.take(6)
    first.ack(*early[1:])
    eventually(lambda: is_done(cluster.committed(topic, topic)[1], 5))
    late = first.take(5)
    first.kill()
    with member(clients, topic, window=100) as second:
        again = second.take(95)
        assert [int(each.token) for each in again] == [0, *range(6, 100)]
        flagged = [each.redelivered for each in again]
        # At least what was in work, and at most a window more.
        assert all(flagged[: 1 + len(late)])
        assert not any(flagged[1 + len(late) + 20 :])


def test_what_a_window_that_grew_gave_out_is_marked_after_a_kill(
    cluster: RealCluster, clients: TestClients, topic: str
) -> None:
    cluster.send(topic, *numbered(1000))
    first = Member(clients, topic, window=10)
    early = first.take(10)
    first.subscription.widen(500)
    # A commit tells that as many more may be given out.
    eventually(lambda: (decode(cluster.committed(topic, topic)[1]) or NOTHING).taken >= 510)
    late = first.take(400)
    first.kill()
    with member(clients, topic, window=1000) as second:
        again = second.take(1000)
    assert all(message.redelivered for message in again[: len(early + late)])
    assert not again[-1].redelivered


def test_one_slow_event_holds_nothing_back_and_the_others_stay_finished(
    cluster: RealCluster, clients: TestClients, topic: str
) -> None:
    """Beside a loop that commits the watermark alone, as programs on Kafka usually do."""
    plain_topic = cluster.topic()
    for name in (topic, plain_topic):
        cluster.send(name, *numbered(3000))
    first = Member(clients, topic, window=50)
    first.take(1)
    for _ in range(2999):
        first.ack(*first.take(1))
    assert first.subscription.figures().gap == 3000
    eventually(lambda: cluster.committed(topic, topic)[1].startswith("infertool/1 3050 1 r:"))
    first.kill()
    _work_plainly(cluster, clients, plain_topic, slow=0)
    repeats: dict[str, list[bytes]] = {}
    for name in (topic, plain_topic):
        cluster.send(name, b"after")
        with member(clients, name, window=4000) as second:
            repeats[name] = []
            while b"after" not in repeats[name]:
                repeats[name] += bodies(second.subscription.receive(500, 1.0))
    assert repeats == {topic: [b"0", b"after"], plain_topic: [*numbered(3000), b"after"]}


def _work_plainly(cluster: RealCluster, clients: TestClients, topic: str, slow: int) -> None:
    """Work on all events but the one at the offset `slow`, commit the watermark, and end."""
    with clients.consumer(topic, **{"auto.offset.reset": "earliest"}) as plain:
        plain.subscribe([topic])
        read, done = 0, set[int]()
        while read < 3000:
            for record in plain.consume(500, 0.1):
                read += 1
                if record.offset() != slow:
                    done.add(record.offset() or 0)
        watermark = next(offset for offset in range(3001) if offset not in done)
        plain.commit(offsets=[TopicPartition(topic, 0, watermark)], asynchronous=False)
    assert cluster.committed(topic, topic)[0] == slow


def test_intake_stops_at_the_largest_gap_and_goes_on_when_the_oldest_is_done(
    cluster: RealCluster, clients: TestClients, topic: str
) -> None:
    """Other partitions go on meanwhile, and the group keeps the consumer, which polls."""
    cluster.send(topic, *numbered(1000))
    with member(clients, topic, window=20, max_gap=50) as only:
        slow = only.take(1)
        passed = 1
        while messages := only.subscription.receive(20, 1.0):
            only.ack(*messages)
            passed += len(messages)
        assert 50 <= passed <= 50 + 21
        cluster.send(topic, b"elsewhere", partition=1)
        other = only.take(1)
        assert other[0].partition == f"{topic}/1"
        only.ack(*slow, *other)
        for _ in range(1000 - passed):
            only.ack(*only.take(1))
    assert cluster.committed(topic, topic)[0] == 1000


def test_no_more_than_the_window_is_in_work_and_acks_count_once(
    cluster: RealCluster, clients: TestClients, topic: str
) -> None:
    cluster.send(topic, *numbered(30))
    with member(clients, topic, window=10) as only:
        taken = only.take(10)
        assert only.subscription.receive(5, 0.2) == []
        only.ack(*taken[:3])
        only.ack(*taken[:3])
        assert only.subscription.stale_acks == 3
        assert len(only.take(3)) == 3
        assert only.subscription.receive(5, 0.2) == []
        # What was given back comes again, and first.
        only.subscription.release(taken[5:7])
        assert bodies(only.take(2)) == bodies(taken[5:7])


@pytest.mark.parametrize("order", ["none", "partition"])
def test_what_is_passed_over_takes_no_room_and_is_the_work_of_the_next(
    cluster: RealCluster, clients: TestClients, topic: str, order: Order
) -> None:
    """More than the window and the largest gap are."""
    cluster.send(topic, *numbered(200))
    with member(clients, topic, window=10, max_gap=50, order=order) as first:
        assert isinstance(first.subscription, PassesOver)
        for number in range(200):
            (message,) = first.take(1)
            assert message.body == b"%d" % number
            if number % 100 == 50:
                first.ack(message)
            else:
                first.subscription.pass_over([message])
        assert first.subscription.receive(5, 0.2) == []
    assert cluster.committed(topic, topic)[0] == 0
    with member(clients, topic) as second:
        assert bodies(second.take(198)) == [each for each in numbered(200) if each not in {b"50", b"150"}]


def test_what_lies_in_more_pieces_than_a_commit_holds_is_told(
    cluster: RealCluster, clients: TestClients, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    count = 20_000
    cluster.send(topic, *numbered(count))
    with member(clients, topic) as first:
        seen = 0
        while seen < count:
            # More comes only once nothing is open.
            messages = [*first.take(1), *first.subscription.receive(500, 0)]
            seen += len(messages)
            first.subscription.pass_over([each for each in messages if int(each.token) % 2 == 0])
            first.ack(*(each for each in messages if int(each.token) % 2))
    assert caplog.text.count("lies in more pieces than a commit can hold") == 1
    offset, text = cluster.committed(topic, topic)
    done = [offset for run in (decode(text) or NOTHING).done for offset in run]
    assert offset == 0
    # The oldest are kept.
    assert done == [*range(1, 2 * len(done), 2)]
    assert 5000 < len(done) < count // 2


@pytest.mark.parametrize("order", ["key", "partition"])
def test_events_that_belong_together_come_one_after_another(
    cluster: RealCluster, clients: TestClients, topic: str, order: str
) -> None:
    for number in range(20):
        cluster.send(topic, b"a%d" % number, key=b"a")
        cluster.send(topic, b"b%d" % number, key=b"b")
    cluster.send(topic, b"free", key=None)
    with member(clients, topic, order=order) as only:
        if order == "key":
            first = only.take(3)
            assert sorted(bodies(first)) == [b"a0", b"b0", b"free"]
            only.ack(*first[1:])
            following = only.take(1)
            assert bodies(following) == [b"b1"]
            only.ack(first[0], *following)
            rest = [body for body in _in_turn(only, 37) if body.startswith(b"a")]
            assert rest == [b"a%d" % number for number in range(1, 20)]
        else:
            first = only.take(1)
            assert only.subscription.receive(5, 0.2) == []
            only.ack(*first)
            assert _in_turn(only, 40)[1::2] == [*(b"a%d" % number for number in range(1, 20)), b"free"]


def _in_turn(only: Member, count: int) -> list[bytes]:
    seen = []
    for _ in range(count):
        (message,) = only.take(1)
        seen.append(message.body)
        only.ack(message)
    return seen


def test_a_dead_letter_is_confirmed_then_settled_and_a_refused_one_comes_again(
    cluster: RealCluster, clients: TestClients, topic: str
) -> None:
    dead = cluster.topic()
    cluster.send(topic, *numbered(4))

    def send(outgoing: Outgoing, on_sent: object, limit_s: float) -> None:
        if outgoing.body == b"1":
            raise RefusedError("too large", address="here", reason="too large")
        cluster.send_outgoing(outgoing, on_sent, limit_s)  # type: ignore[arg-type]

    with member(clients, topic, send=send) as only:
        zero, one, two, three = only.take(4)
        only.subscription.move([Move(zero, Outgoing(dead, zero.body)), Move(two, None)], 30)
        # The commit is part of the move: a kill after it repeats neither.
        progress = decode(cluster.committed(topic, topic)[1])
        assert cluster.committed(topic, topic)[0] == 1
        assert progress is not None
        assert progress.is_done(2)
        with pytest.raises(MoveRefusedError, match="too large"):
            only.subscription.move([Move(one, Outgoing(dead, one.body)), Move(three, None)], 30)
        again = only.take(2)
        assert [(each.body, each.redelivered) for each in again] == [(b"1", True), (b"3", True)]
        with pytest.raises(StaleMessagesError):
            only.subscription.start_move([Move(zero, None)], 30)
    with member(clients, dead, group=f"look-{dead}") as look:
        assert bodies(look.take(1)) == [b"0"]


def test_an_event_whose_move_fails_without_a_connection_comes_again_with_the_next_one(
    cluster: RealCluster, clients: TestClients, topic: str
) -> None:
    dead = cluster.topic()
    cluster.send(topic, *numbered(2))
    connected: list[bool] = []

    def send(outgoing: Outgoing, on_sent: object, limit_s: float) -> None:
        if not connected:
            raise ConnectionLostError("there is no connection", address="here")
        cluster.send_outgoing(outgoing, on_sent, limit_s)  # type: ignore[arg-type]

    with member(clients, topic, send=send, is_connected=lambda: bool(connected)) as only:
        zero, one = only.take(2)
        for message in (zero, one):
            with pytest.raises(ConnectionLostError):
                only.subscription.move([Move(message, Outgoing(dead, message.body))], 30)
        cluster.send(topic, *numbered(1, 2))
        assert bodies(only.take(1)) == [b"2"]
        connected.append(True)
        only.subscription.renew()
        again = only.take(2)
        assert [(each.body, each.redelivered) for each in again] == [(b"0", True), (b"1", True)]
        only.subscription.move([Move(each, Outgoing(dead, each.body)) for each in again], 30)
        assert only.subscription.figures().in_work == 1


def test_a_note_of_another_program_is_left_alone_until_an_event_is_settled(
    cluster: RealCluster, clients: TestClients, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.send(topic, *numbered(5))
    cluster.commit(topic, topic, 2, "bgAAAAAAAAAB")
    with caplog.at_level(logging.WARNING), member(clients, topic) as only:
        assert bodies(only.take(3)) == [b"2", b"3", b"4"]
    (told,) = [record.message for record in caplog.records if "another program" in record.message]
    assert f"the commit of the group {topic} for {topic}/0: it is read from offset 2 on" in told
    assert cluster.committed(topic, topic) == (2, "bgAAAAAAAAAB")
    with member(clients, topic) as only:
        only.ack(*only.take(3)[1:])
    assert cluster.committed(topic, topic) == (2, "infertool/1 5 3 r:C")


def test_a_topic_that_is_missing_is_told_at_the_start(clients: TestClients) -> None:
    with pytest.raises(UnroutableError, match="there is no topic nowhere"):
        Member(clients, "nowhere")
