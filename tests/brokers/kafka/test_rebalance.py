"""Members of a group come and go: what is settled stays settled, and one consumer at a time has a partition."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from typing import Any

import pytest

from infertool.brokers.kafka.metadata import decode
from infertool.brokers.port import Move, OnSent
from infertool.errors import ConnectionLostError, RefusedError, StaleMessagesError
from infertool.message import Message, Outgoing
from tests.support.kafka import Kafka
from tests.support.kafkamember import Member, RealCluster, TestClients, bodies, eventually, member
from tests.support.kafkaproxy import KafkaFrameProxy
from tests.support.rawkafka import RawKafka
from tests.support.running import LONG

pytestmark = pytest.mark.kafka

PARTITIONS = 4
_OFFSET_COMMIT = 8


@pytest.fixture
def cluster(raw_kafka: RawKafka) -> RealCluster:
    return RealCluster(raw_kafka)


@pytest.fixture
def topic(cluster: RealCluster) -> str:
    return cluster.topic(PARTITIONS)


@pytest.fixture(params=["classic", "consumer"])
def clients(request: pytest.FixtureRequest, cluster: RealCluster) -> TestClients:
    return of_protocol(cluster, request.param)


def of_protocol(cluster: RealCluster, protocol: str, **options: Any) -> TestClients:
    return TestClients(cluster.address, protocol=protocol, **options)


def send_all(cluster: RealCluster, topic: str, count: int) -> None:
    for partition in range(PARTITIONS):
        cluster.send(topic, *(b"%d/%d" % (partition, number) for number in range(count)), partition=partition)


class Worker:
    """Works on a member's events as a consumer does: it gives back what it has not begun when a partition goes."""

    def __init__(self, joined: Member, seen: list[bytes]) -> None:
        self.member = joined
        self._seen = seen
        self._lock = threading.Lock()
        self._waiting: list[Message] = []
        joined.on_revoking = self._give_back
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _give_back(self, partitions: frozenset[str]) -> None:
        with self._lock:
            going = [message for message in self._waiting if message.partition in partitions]
            self._waiting = [message for message in self._waiting if message.partition not in partitions]
            self.member.subscription.release(going)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                self._waiting += self.member.subscription.receive(20, 0)
                begun, self._waiting = self._waiting[-3:], self._waiting[:-3]
            self._stopping.wait(0.002)
            self._seen += bodies(begun)
            self.member.ack(*begun)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self.member.close()


def test_members_that_come_and_go_repeat_nothing(cluster: RealCluster, clients: TestClients, topic: str) -> None:
    count = 600
    send_all(cluster, topic, count)
    seen: list[bytes] = []
    first = Worker(Member(clients, topic, window=100), seen)
    second = Worker(Member(clients, topic, window=100), seen)
    eventually(lambda: len(first.member.names) == len(second.member.names) == PARTITIONS // 2)
    first.stop()
    third = Worker(Member(clients, topic, window=100), seen)
    eventually(lambda: len(second.member.names) == len(third.member.names) == PARTITIONS // 2)
    second.stop()
    eventually(lambda: len(set(seen)) == PARTITIONS * count)
    third.stop()
    assert Counter(seen).most_common(1)[0][1] == 1
    assert [cluster.committed(topic, topic, partition)[0] for partition in range(PARTITIONS)] == [count] * PARTITIONS
    names = [name for told, partitions in second.member.events if told == "revoked" for name in partitions]
    assert set(names) <= {f"{topic}/{partition}" for partition in range(PARTITIONS)}


def test_what_is_in_work_may_be_settled_until_the_partition_is_gone(
    cluster: RealCluster, clients: TestClients, topic: str
) -> None:
    send_all(cluster, topic, 10)
    with member(clients, topic) as first:
        taken = first.take(10 * PARTITIONS)
        going: list[str] = []
        begun = threading.Event()

        def revoking(partitions: frozenset[str]) -> None:
            going.extend(partitions)
            begun.set()

        first.on_revoking = revoking
        joining = threading.Thread(target=lambda: later.append(Member(clients, topic)))
        later: list[Member] = []
        joining.start()
        assert begun.wait(LONG)
        gone = going[0]
        first.ack(*(message for message in taken if message.partition == gone and message.token != "3"))
        eventually(lambda: any(told == "revoked" and gone in partitions for told, partitions in first.events))
        (late,) = (message for message in taken if message.partition == gone and message.token == "3")
        first.ack(late)
        assert first.subscription.stale_acks == 1
        with pytest.raises(StaleMessagesError):
            first.subscription.start_move([Move(late, None)], 10)
        joining.join()
        again: list[Message] = []
        while not again:
            again = [message for message in later[0].take(1) if message.partition == gone]
        assert [(message.token, message.redelivered) for message in again] == [("3", True)]
        later[0].close()


def test_a_move_of_which_one_partition_goes_meanwhile_settles_nothing(
    cluster: RealCluster, clients: TestClients, topic: str
) -> None:
    """What it is told is that nothing was settled: the events of the others come again."""
    send_all(cluster, topic, 1)
    sent: list[OnSent] = []
    first = Member(clients, topic, send=lambda _outgoing, on_sent, _limit_s: sent.append(on_sent))
    taken = first.take(PARTITIONS)
    move = first.subscription.start_move([Move(each, Outgoing("dead", each.body)) for each in taken], LONG)
    second = Member(clients, topic)
    eventually(lambda: any(told == "revoked" for told, _ in first.events))
    stays = first.names
    assert 0 < len(stays) < PARTITIONS
    for on_sent in sent:
        on_sent(None)
    with pytest.raises(ConnectionLostError, match="went to another consumer"):
        move.commit()
    again = first.take(len(stays))
    assert {(each.partition, each.redelivered) for each in again} == {(name, True) for name in stays}
    second.close()
    first.close()


class _Commits:
    """Has the connection be cut over one commit, which librdkafka then sends again: `sent` counts what was sent."""

    def __init__(self) -> None:
        self.cuts_next = False
        self.sent = 0
        self.was_cut = threading.Event()

    def to_server(self, request: bytes) -> bytes | None:
        if int.from_bytes(request[:2]) != _OFFSET_COMMIT:
            return request
        self.sent += 1
        if not self.cuts_next:
            return request
        self.cuts_next = False
        self.was_cut.set()
        return None


def test_a_commit_that_is_sent_again_does_not_undo_the_last_one_of_a_partition(
    kafka: Kafka, cluster: RealCluster, topic: str
) -> None:
    send_all(cluster, topic, 10)
    commits = _Commits()
    patient = {"session.timeout.ms": 30_000}
    with KafkaFrameProxy(kafka.port(), to_server=commits.to_server) as proxy:
        again_ms = {"retry.backoff.ms": 500, "retry.backoff.max.ms": 500}
        clients = TestClients(f"127.0.0.1:{proxy.port}", {**patient, **again_ms}, session_timeout_s=30)
        first = Member(clients, topic)
        taken = first.take(10 * PARTITIONS)
        gone: set[str] = set()

        def revoking(partitions: frozenset[str]) -> None:
            if gone:
                return
            gone.update(partitions)
            going = [message for message in taken if message.partition in partitions]
            kept = first.subscription._commits
            first.ack(*(message for message in going if int(message.token) < 5))
            commits.cuts_next = True
            kept.request()
            kept.step()
            assert commits.was_cut.wait(LONG)
            first.ack(*(message for message in going if int(message.token) >= 5))

        first.on_revoking = revoking
        eventually(lambda: not commits_soon(first))
        # The rebalance ends when this one has heard of it: until then the group takes commits of before.
        rare = {**patient, "heartbeat.interval.ms": 8000}
        later = Member(TestClients(cluster.address, rare, session_timeout_s=30), topic)
        eventually(lambda: len(later.names) == PARTITIONS // 2)
        eventually(lambda: commits.sent >= 3)
        first.close()
        numbers = [int(name.partition("/")[2]) for name in gone]
        assert [cluster.committed(topic, topic, number)[0] for number in numbers] == [10] * len(numbers)
        later.close()


def test_a_static_member_that_restarts_takes_nothing_from_others(cluster: RealCluster, topic: str) -> None:
    send_all(cluster, topic, 5)
    # A busy machine may need some seconds to restart one.
    patient = {"properties": {"session.timeout.ms": 60_000}, "session_timeout_s": 60}
    one, two = (of_protocol(cluster, "classic", member=name, **patient) for name in ("one", "two"))
    with member(one, topic) as stays:
        restarts = Member(two, topic)
        eventually(lambda: len(stays.names) == len(restarts.names) == PARTITIONS // 2)
        before, had = list(stays.events), restarts.names
        restarts.ack(*restarts.take(10)[1:])
        restarts.close()
        restarts = Member(two, topic)
        eventually(lambda: restarts.names == had)
        # What was settled stays so.
        assert len(restarts.take(1)) == 1
        assert restarts.subscription.receive(10, 0.5) == []
        assert stays.events == before
        restarts.close()


def test_a_group_of_another_protocol_is_refused(cluster: RealCluster, topic: str) -> None:
    """Its members share out partitions in a way that takes all of them from all members each time."""
    send_all(cluster, topic, 1)
    properties = {"partition.assignment.strategy": "range", "auto.offset.reset": "earliest"}
    others = of_protocol(cluster, "classic").consumer(topic, **properties)
    others.subscribe([topic])
    eventually(lambda: others.poll(0.05) is not None)
    stopping = threading.Event()
    polling = threading.Thread(target=lambda: [others.poll(0.05) for _ in iter(stopping.is_set, True)])
    polling.start()
    try:
        with pytest.raises(RefusedError, match="use another"):
            Member(of_protocol(cluster, "classic"), topic)
    finally:
        stopping.set()
        polling.join()
        others.close()


def test_partitions_that_were_lost_are_told_at_once(cluster: RealCluster, topic: str) -> None:
    """A process that was stopped for longer than the group waits: it may go on, and settles nothing of before."""
    send_all(cluster, topic, 3)
    clients = TestClients(cluster.address, {"max.poll.interval.ms": 6000})
    with member(clients, topic) as stopped:
        taken = stopped.take(3 * PARTITIONS)
        # librdkafka counts a wait in one of its callbacks as a poll: none comes where no commit is under way.
        eventually(lambda: not commits_soon(stopped))
        with stopped.subscription._deliveries._lock:
            eventually(lambda: not cluster.raw.describe(topic).members)
        eventually(lambda: bool(stopped.events))
        assert stopped.events == [("revoked", frozenset(f"{topic}/{number}" for number in range(PARTITIONS)))]
        stopped.ack(*taken)
        assert stopped.subscription.stale_acks == len(taken)
        # It is back in the group.
        assert {message.epoch for message in stopped.take(3 * PARTITIONS)}.isdisjoint(m.epoch for m in taken)


def commits_soon(only: Member) -> bool:
    assigned = only.subscription._deliveries.assigned
    return only.subscription._commits.is_under_way or any(each.is_changed or each.is_urgent for each in assigned)


_PROCESS = """
import sys
from tests.support.kafkamember import Member, TestClients
joined = Member(TestClients(sys.argv[1]), sys.argv[2], window=50)
while True:
    messages = joined.take(1)
    if int(messages[0].token) % 10:
        joined.ack(*messages)
        print("done", messages[0].id, flush=True)
    else:
        print("kept", messages[0].id, flush=True)
    if int(messages[0].token) == 300:
        from tests.support.kafkamember import eventually
        eventually(lambda: not any(each.is_changed for each in joined.subscription._deliveries.assigned))
        print("committed", flush=True)
"""


def test_after_a_kill_only_what_was_in_work_or_not_yet_committed_comes_again(cluster: RealCluster, topic: str) -> None:
    cluster.send(topic, *(b"%d" % number for number in range(500)))
    process = subprocess.Popen(
        [sys.executable, "-c", _PROCESS, cluster.address, topic], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    said: list[list[str]] = []
    for line in process.stdout:
        said.append(line.split())
        if line == "committed\n":
            break
    process.kill()
    rest = process.stdout.read().split("\n")[:-1]
    process.wait()
    before = {words[1] for words in said if words[0] == "done"}
    kept = {words[1] for words in said if words[0] == "kept"}
    after = {line.split()[1] for line in rest if line.startswith("done")}
    progress = decode(cluster.committed(topic, topic)[1])
    assert progress is not None
    with member(TestClients(cluster.address), topic) as second:
        again = second.take(500 - len(before) - len(after))
        extra = second.subscription.receive(500, 1.0)
        got = {message.id for message in [*again, *extra]}
        # Nothing that was committed is repeated; what was settled after that commit may be.
        assert not got & before
        assert len(got & after) == len(extra)
        assert kept <= got
        assert all(message.redelivered for message in again if message.id in kept)
        assert len(got | before | after) == 500
