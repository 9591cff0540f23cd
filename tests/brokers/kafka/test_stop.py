"""A consumer that stops while its group shares the topic out anew: all that is done is committed, once, and it ends."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from tests.support.kafka import Kafka
from tests.support.kafkamember import Member, RealCluster, TestClients
from tests.support.kafkaproxy import KafkaFrameProxy
from tests.support.rawkafka import RawKafka
from tests.support.running import LONG

pytestmark = pytest.mark.kafka

PARTITIONS, EACH = 4, 10
_OFFSET_COMMIT = 8

# A process of its own: a client that hangs in its close keeps the interpreter's lock.
_PROCESS = f"""
import sys, threading
from tests.support.kafkamember import Member, TestClients, eventually
from tests.support.running import LONG
address, topic, protocol = sys.argv[1:]
joined = Member(TestClients(address, protocol=protocol, session_timeout_s=2 * LONG), topic)
# What is in work may take its time, so that the revocation is not over at the stop.
joined.subscription._rebalance._wait_s = LONG
taken = joined.take({PARTITIONS * EACH})
commits, assigned = joined.subscription._commits, joined.subscription._deliveries.assigned
eventually(lambda: not (commits.is_under_way or any(each.is_urgent or each.is_changed for each in assigned)))
begun = threading.Event()
def revoking(names):
    # Only what ends a partition commits from now on.
    commits._due = float("inf")
    joined.ack(*(message for message in taken if message.token != "4"))
    begun.set()
joined.on_revoking = revoking
print("taken", flush=True)
assert begun.wait(LONG)
eventually(lambda: not commits.is_under_way)
print("revoking", flush=True)
sys.stdin.readline()
joined.close()
"""


class _Commits:
    """Counts the commits that a client sends."""

    def __init__(self) -> None:
        self.sent = 0

    def to_server(self, request: bytes) -> bytes:
        self.sent += int.from_bytes(request[:2]) == _OFFSET_COMMIT
        return request


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_stop_beside_a_revocation_commits_what_is_done_of_all_partitions(
    kafka: Kafka, raw_kafka: RawKafka, protocol: str
) -> None:
    cluster = RealCluster(raw_kafka)
    topic = cluster.topic(PARTITIONS)
    for partition in range(PARTITIONS):
        cluster.send(topic, *(b"%d" % number for number in range(EACH)), partition=partition)
    commits, later = _Commits(), list[Member]()
    with KafkaFrameProxy(kafka.port(), to_server=commits.to_server) as proxy:
        command = [sys.executable, "-c", _PROCESS, f"127.0.0.1:{proxy.port}", topic, protocol]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "taken\n"
        clients = TestClients(cluster.address, protocol=protocol)
        joining = threading.Thread(target=lambda: later.append(Member(clients, topic)))
        joining.start()
        try:
            assert process.stdout.readline() == "revoking\n"
            before = commits.sent
            process.communicate("stop\n", timeout=LONG)
            assert process.returncode == 0
        finally:
            process.kill()
            joining.join()
        assert commits.sent == before + 1
        # Event 4 of each was in work.
        committed = [cluster.committed(topic, topic, partition) for partition in range(PARTITIONS)]
        assert committed == [(4, f"infertool/1 {EACH} 5 r:F")] * PARTITIONS
        rest = later[0].take(PARTITIONS)
        assert [message.token for message in rest] == ["4"] * PARTITIONS
        later[0].close()
