"""Order by key under concurrency, slow events, refused moves and rebalances, on a real Kafka."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from infertool.brokers.port import Move
from infertool.errors import MoveRefusedError, RefusedError, StaleMessagesError
from infertool.message import Message, Outgoing
from tests.support.kafkamember import TIMEOUT_S, Member, RealCluster, TestClients, eventually
from tests.support.rawkafka import RawKafka

pytestmark = pytest.mark.kafka

KEYS, EVENTS, PARTITIONS, THREADS = 150, 3000, 3, 64


class Crowd:
    """Runs each event of its members on one of many threads, and notes which events of a key run at once."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.done: dict[bytes, list[int]] = defaultdict(list)
        # Set once so many events run at once as there are threads; until then none ends.
        self.crowded = threading.Event()
        self.stopping = threading.Event()
        self._running: dict[bytes, Message] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS)

    def work(self, joined: Member) -> threading.Thread:
        def take() -> None:
            while not self.stopping.is_set():
                for message in joined.subscription.receive(10, 0.1):
                    self._threads.submit(self._run, joined, message)

        thread = threading.Thread(target=take)
        thread.start()
        return thread

    def _run(self, joined: Member, message: Message) -> None:
        key, _, number = message.body.partition(b"/")
        with self._lock:
            if key in self._running:
                self.faults.append(f"{message.id} runs beside {self._running[key].id}")
            self._running[key] = message
            if len(self._running) == THREADS:
                self.crowded.set()
        self.crowded.wait(TIMEOUT_S)
        self.stopping.wait(random.choice([0.0, 0.0, 0.001, 0.02]))
        with self._lock:
            del self._running[key]
            done = self.done[key]
            if int(number) != len(done):
                self.faults.append(f"{message.id} is number {int(number)} of its key, after {len(done)} others")
            if random.random() < 0.05:
                # It comes again, before all others of its key.
                with pytest.raises((MoveRefusedError, StaleMessagesError)):
                    joined.subscription.move([Move(message, Outgoing("nowhere", b""))], 30)
                return
            done.append(int(number))
            joined.ack(message)


def refuse(outgoing: Outgoing, on_sent: object, limit_s: float) -> None:
    raise RefusedError("too large", address="here", reason="too large")


def test_events_of_a_key_run_in_turn_over_failures_and_rebalances(raw_kafka: RawKafka) -> None:
    cluster = RealCluster(raw_kafka)
    topic = cluster.topic(PARTITIONS)
    for number in range(EVENTS // KEYS):
        for key in range(KEYS):
            cluster.send(topic, b"%d/%d" % (key, number), key=b"%d" % key, partition=key % PARTITIONS)
    crowd, clients = Crowd(), TestClients(cluster.address)
    members = [Member(clients, topic, order="key", send=refuse)]
    threads = [crowd.work(members[0])]
    for _ in range(2):
        eventually(lambda: sum(map(len, crowd.done.values())) > EVENTS * len(members) // 4)
        members.append(Member(clients, topic, order="key", send=refuse))
        threads.append(crowd.work(members[-1]))
    eventually(lambda: sum(map(len, crowd.done.values())) >= EVENTS)
    crowd.stopping.set()
    for thread in threads:
        thread.join()
    for joined in members:
        joined.close()
    assert not crowd.faults
    assert crowd.crowded.is_set()
    assert all(done == list(range(EVENTS // KEYS)) for done in crowd.done.values())
