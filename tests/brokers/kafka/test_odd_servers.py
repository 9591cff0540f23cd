"""Servers that change under a running consumer: a new certificate, and a cluster that loses nodes and events."""

from __future__ import annotations

import logging
import queue
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from infertool.brokers.kafka.broker import KafkaBroker
from infertool.errors import InfertoolError
from infertool.message import Message, Outgoing
from infertool.secret import Secret
from tests.brokers.kafka.conftest import OpenBroker
from tests.support import certificates
from tests.support import kafka as servers
from tests.support.brokers import take
from tests.support.kafka import Kafka, KafkaCluster
from tests.support.kafkamember import Member, TestClients, bodies, member
from tests.support.kafkaproxy import KafkaProxy
from tests.support.proxy import Proxy
from tests.support.rawkafka import Committed, RawKafka, eventually

pytestmark = [pytest.mark.kafka, pytest.mark.long]


class RenewingKafka(Kafka):
    """A Kafka that gets a new certificate while it runs."""

    line: Proxy

    def configure(self) -> None:
        folder = self.base / "tls"
        folder.mkdir()
        self.signer = certificates.authority(folder)
        self.signer.issue("server", "127.0.0.1")

    def served(self) -> str:
        """Return the certificate that a new client sees."""
        return ssl.get_server_certificate(("127.0.0.1", self.port("SSL")))

    def renew(self) -> None:
        before, path = self.served(), self.signer.issue("server", "127.0.0.1")
        changes = [
            ConfigEntry(
                f"listener.name.ssl.ssl.keystore.{name}", value, incremental_operation=AlterConfigOpType.SET
            )
            for name, value in {"type": "PEM", "location": str(path)}.items()
        ]  # fmt: skip
        broker = ConfigResource(ResourceType.BROKER, str(self.node), incremental_configs=changes)
        admin = AdminClient(self.client())
        admin.incremental_alter_configs([broker])[broker].result(120)
        eventually(lambda: self.served() != before)

    def advertise(self, port: int) -> None:
        """Have clients that speak TLS come by another port."""
        ports = {name: self.port(name) for name in servers.LISTENERS} | {"SSL": port}
        listeners = ",".join(f"{name}://127.0.0.1:{number}" for name, number in ports.items())
        self._properties["advertised.listeners"] = listeners


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RenewingKafka]:
    """A Kafka that takes little metadata with a commit. With TLS it is reached by `line`."""
    server = RenewingKafka(tmp_path_factory.mktemp("kafka") / "own", {"offset.metadata.max.bytes": "200"})
    try:
        with Proxy(server.port("SSL")) as server.line:
            server.advertise(server.line.port)
            yield server.start()
    finally:
        server.remove()


def test_a_certificate_is_renewed_while_a_consumer_runs(own: RenewingKafka, open_kafka: OpenBroker) -> None:
    raw = RawKafka(own.client())
    topic = raw.topic(1)
    url = f"kafka+ssl://127.0.0.1:{own.line.port}/{topic}?group={topic}"
    broker = open_kafka(url, tls_ca_file=str(own.authority), heartbeat_s=1.0)
    subscription = broker.subscribe(topic, window=10)
    raw.send(topic, b"before")
    subscription.ack(take(subscription, 1))
    own.renew()
    own.line.cut()
    raw.send(topic, b"after")
    [after] = take(subscription, 1)
    assert after.body == b"after"
    subscription.ack([after])
    # What was cut may be told as a loss.
    eventually(lambda: _sent(broker, topic, b"sent"))
    eventually(lambda: _committed(raw, topic) >= 2)


def test_metadata_that_the_broker_refuses_is_shortened(own: RenewingKafka, caplog: pytest.LogCaptureFixture) -> None:
    raw = RawKafka(own.client())
    topic = raw.topic(1)
    raw.send(topic, *(b"%d" % number for number in range(2400)))
    with member(TestClients(own.address()), topic, window=3000) as first:
        taken = first.take(2400)
        first.ack(*taken[1::2])
        eventually(lambda: "infertool/1" in raw.committed(topic, topic).get(0, Committed(0, "")).metadata)
        first.ack(*taken[:1])
    assert "raise the broker's offset.metadata.max.bytes" in caplog.text
    with member(TestClients(own.address()), topic, window=3000) as second:
        again = {message.body for message in _until(second, b"2398")}
        still_open = {message.body for message in taken[2::2]}
        # What did not fit is repeated, and no more than that.
        assert again > still_open
        assert len(again) < 2300
        assert _committed(raw, topic) == 2


def _until(only: Member, last: bytes) -> list[Message]:
    """Receive up to the event with this body."""
    found = only.take(1)
    while found[-1].body != last:
        found += only.take(1)
    return found


def test_a_password_that_changed_is_read_by_what_runs(
    kafka: Kafka, raw_kafka: RawKafka, open_kafka: OpenBroker, tmp_path: Path
) -> None:
    """A client of librdkafka has the login that it was made with."""
    topic, replies, file = raw_kafka.topic(1), raw_kafka.topic(1), tmp_path / "password"
    user = f"user.{topic}"
    raw_kafka.allow(user, "READ", "WRITE", topic=topic)
    raw_kafka.allow(user, "READ", topic=replies)
    raw_kafka.allow(user, "READ", group=topic)

    def set_password(password: str) -> None:
        file.write_text(password)
        how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        change = UserScramCredentialUpsertion(user, how, password.encode())
        admin = AdminClient(kafka.client())
        admin.alter_user_scram_credentials([change])[user].result(120)

    set_password("one")
    with KafkaProxy(kafka.port("SASL_PLAINTEXT")) as line:
        broker = open_kafka(
            f"{line.url}/{topic}?group={topic}", user=user, password=Secret("one", file.read_text), heartbeat_s=1.0,
            reply_topic=replies, kafka={"sasl.mechanism": "SCRAM-SHA-256", "session.timeout.ms": 3000},
        )  # fmt: skip
        heard: queue.SimpleQueue[Sequence[Message]] = queue.SimpleQueue()
        opened = broker.open_replies(heard.put)
        subscription = broker.subscribe(topic, window=10)
        raw_kafka.send(topic, b"before", b"slow")
        before, slow = take(subscription, 2)
        subscription.ack([before])
        eventually(lambda: _committed(raw_kafka, topic) == 1)
        set_password("two")
        line.cut()
        raw_kafka.send(topic, b"after")
        raw_kafka.send(replies, b"reply")
        again, after = take(subscription, 2)
        assert [again.body, after.body] == [b"slow", b"after"]
        subscription.ack([slow])
        subscription.ack([again, after])
        eventually(lambda: _committed(raw_kafka, topic) == 3)
        assert bodies(heard.get(timeout=120)) == [b"reply"]
        assert opened.address
        eventually(lambda: _sent(broker, topic, b"sent"))
        broker.close(60)


def _committed(raw: RawKafka, topic: str) -> int:
    try:
        found = raw.committed(topic, topic)
    except KafkaException:
        # The coordinator of the group moves.
        return -1
    return found[0].offset if found else -1


def _sent(broker: KafkaBroker, topic: str, body: bytes) -> bool:
    """Return True if a message was sent."""
    ends: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    try:
        broker.send(Outgoing(topic, body), ends.put)
    except InfertoolError:
        return False
    return ends.get(timeout=120) is None


def test_an_unclean_election_loses_events_of_the_cluster_and_no_others(
    tmp_path: Path, open_kafka: OpenBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """The node that has all events is gone, and one that has the first ones leads: what it has is read again."""
    with servers.running_cluster(tmp_path / "cluster", {"unclean.leader.election.interval.ms": "500"}) as cluster:
        raw = RawKafka(cluster.client())
        topic = raw.topic(1, replicas=2, unclean_leader_election_enable="true", min_insync_replicas=1)
        broker = open_kafka(cluster.url)
        eventually(lambda: _sent(broker, topic, b"0"))  # a node that is asked may not know the topic yet
        for body in (b"1", b"2"):
            assert _sent(broker, topic, body)
        # The group's node may be the one that is killed, and another takes its place after seconds.
        clients = TestClients(cluster.addresses, {"session.timeout.ms": 45_000}, session_timeout_s=45)
        with member(clients, topic) as only:
            only.ack(*only.take(3))
            leader, follower = _replicas(cluster, topic)
            follower.kill()
            eventually(lambda: _in_sync(cluster, topic) == {leader.node})
            assert _sent(broker, topic, b"lost")
            assert _sent(broker, topic, b"too")
            only.ack(*only.take(2))
            eventually(lambda: _committed(raw, topic) == 5)
            leader.kill()
            with caplog.at_level(logging.WARNING):
                follower.start()
                again = only.take(3)
            assert bodies(again) == [b"0", b"1", b"2"]
            assert f"the log of {topic}/0 is not the one that was read up to offset 5" in caplog.text
            # The log knows nothing of what was sent last: a producer of its own begins anew.
            eventually(lambda: _sent(broker, topic, b"new"))
            only.ack(*again, *(new := only.take(1)))
            assert bodies(new) == [b"new"]
            eventually(lambda: _committed(raw, topic) >= 4)
        broker.close(60)


def _replicas(cluster: KafkaCluster, topic: str) -> list[Kafka]:
    """Return the nodes that have the partition, the leader first."""
    found = _partition(cluster, topic)
    order = sorted(found.replicas, key=lambda node: node != found.leader)
    return [cluster.nodes[node - 1] for node in order]


def _in_sync(cluster: KafkaCluster, topic: str) -> set[int]:
    return set(_partition(cluster, topic).isrs)


def _partition(cluster: KafkaCluster, topic: str) -> Any:
    admin = AdminClient({**cluster.client(), "log_level": 0})
    return admin.list_topics(topic, timeout=60).topics[topic].partitions[0]
