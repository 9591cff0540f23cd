"""A Kafka that goes away and comes back: what listeners hear, and what becomes of sends and calls."""

from __future__ import annotations

import queue
import threading
from functools import partial
from pathlib import Path

import pytest

from infertool.errors import ConnectionLostError
from infertool.message import Outgoing
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from tests.brokers.kafka.conftest import OpenBroker
from tests.support import kafka as servers
from tests.support.rawkafka import RawKafka, eventually

pytestmark = [pytest.mark.kafka, pytest.mark.long]

_S = 120.0


def _await(heard: queue.SimpleQueue[ConnectionEvent], state: ConnectionState) -> ConnectionEvent:
    while (event := heard.get(timeout=_S)).state is not state:
        pass
    return event


def test_a_loss_is_heard_of_and_sends_go_on_after_it(tmp_path: Path, open_kafka: OpenBroker) -> None:
    with servers.running(tmp_path / "own") as server:
        raw = RawKafka(server.client())
        topic = raw.topic()
        heard: queue.SimpleQueue[ConnectionEvent] = queue.SimpleQueue()
        broker = open_kafka(server.url, on_connection=heard.put, reply_topic=topic)
        assert _await(heard, ConnectionState.CONNECTED).epoch == 1
        replies = broker.open_replies(lambda _: None)
        ends: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        broker.send(Outgoing(topic, b"1"), ends.put)
        assert ends.get(timeout=_S) is None
        server.kill()
        broker.send(Outgoing(topic, b"2"), ends.put)
        assert _await(heard, ConnectionState.LOST).reason
        assert isinstance(ends.get(timeout=_S), ConnectionLostError)
        assert replies.address is None
        with pytest.raises(ConnectionLostError):
            broker.send(Outgoing(topic, b"3"), ends.put)
        assert broker.measure(topic, 1) is None
        server.start()
        assert _await(heard, ConnectionState.CONNECTED).epoch == 2
        assert replies.address == f"{topic}/0"
        broker.send(Outgoing(topic, b"4"), ends.put)
        assert ends.get(timeout=_S) is None
        assert {b"1", b"4"} <= {record.value() for record in raw.all(topic)} <= {b"1", b"2", b"4"}
        raw.close()


def _has_committed(raw: RawKafka, topic: str, offset: int) -> bool:
    return offset == (found.offset if (found := raw.committed(topic, topic).get(0)) else -1)


def test_a_stop_without_a_broker_waits_only_for_what_is_to_be_committed(tmp_path: Path, open_kafka: OpenBroker) -> None:
    with servers.running(tmp_path / "own") as server:
        raw = RawKafka(server.client())
        idle, busy = (raw.topic(name=name) for name in ("idle", "busy"))
        heard: dict[str, queue.SimpleQueue[ConnectionEvent]] = {topic: queue.SimpleQueue() for topic in (idle, busy)}
        # For this time librdkafka waits with a commit.
        session_ms = {idle: 20_000, busy: 300_000}
        brokers = {
            topic: open_kafka(
                server.topic_url(topic, group=topic),
                on_connection=heard[topic].put,
                kafka={"session.timeout.ms": session_ms[topic]},
            )
            for topic in (idle, busy)
        }
        subscriptions = {topic: broker.subscribe(topic, window=10) for topic, broker in brokers.items()}
        taken = {}
        for topic in (idle, busy):
            raw.send(topic, b"1", b"2")
            taken[topic] = [message for _ in "12" for message in subscriptions[topic].receive(1, _S)]
        for topic in (idle, busy):
            subscriptions[topic].ack(taken[topic][:1])
            eventually(partial(_has_committed, raw, topic, 1))
        server.kill()
        for each in heard.values():
            _await(each, ConnectionState.LOST)
        subscriptions[busy].ack(taken[busy][1:])
        polls = next(thread for thread in threading.enumerate() if thread.name == "infertool-kafka-idle")
        brokers[idle].close(_S)
        assert polls.is_alive(), "it was waited for"
        closing = threading.Thread(target=brokers[busy].close, args=(_S,))
        closing.start()
        server.start()
        closing.join()
        assert _has_committed(RawKafka(server.client()), busy, 2)
