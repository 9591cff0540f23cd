"""A real Apache Kafka for tests, of one node or of three: KRaft, formatted by Kafka's storage tool."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from tests.support import certificates, maven
from tests.support.activemq import QUICK_START
from tests.support.serverprocess import START_S, ServerProcess

_FIXTURES = Path(__file__).parents[2] / "fixtures" / "kafka"
_CLUSTER_ID = "infertool-tests-000000"
# Clients' listeners, in the order of the ports; the controller's is the last one.
LISTENERS = ("PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL")
# `guest` may do what a test allows it; each user's password is its name.
USERS = ("admin", "guest")
_LOGIN = {
    "plain": "plain.PlainLoginModule required " + " ".join(f'user_{user}="{user}"' for user in USERS),
    "scram-sha-256": "scram.ScramLoginModule required",
    "oauthbearer": 'oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker"',
}


class Kafka(ServerProcess):
    """One Kafka; `properties` are added to the fixture's.

    Without a login everything is allowed. SASL knows the `USERS` by PLAIN and SCRAM-SHA-256, and any by unsigned tokens
    of OAUTHBEARER; SSL knows a client by the name in its certificate, where it shows one.
    """

    ports = 5

    def __init__(
        self, base: Path, properties: Mapping[str, str] | None = None, *, node: int = 1, java: Sequence[str] = ()
    ) -> None:
        self.node = node
        self._properties = dict(properties or {})
        self._java = java
        super().__init__(base)
        self.voters = {node: self.other_ports[3]}

    def port(self, listener: str = "PLAINTEXT") -> int:
        return [self.stomp_port, *self.other_ports][LISTENERS.index(listener)]

    def address(self, listener: str = "PLAINTEXT") -> str:
        return f"127.0.0.1:{self.port(listener)}"

    @property
    def url(self) -> str:
        return f"kafka://{self.address()}"

    def topic_url(self, topic: str, listener: str = "PLAINTEXT", scheme: str = "kafka", **query: object) -> str:
        """Return the URL of a topic, such as `topic_url("events", group="g")`."""
        options = f"?{urlencode(query)}" if query else ""
        return f"{scheme}://{self.address(listener)}/{topic}{options}"

    @property
    def authority(self) -> Path:
        """The certificate of who signed the server's and the clients'."""
        return self.base / "tls" / "authority.pem"

    def certificate(self, user: str) -> Path:
        """Return a client's certificate with its key, for one of the `USERS`."""
        return self.base / "tls" / f"{user}.pem"

    def client(self, listener: str = "PLAINTEXT", user: str = "admin", mechanism: str = "PLAIN") -> dict[str, Any]:
        """Return what librdkafka is told, for a client of `listener`."""
        known: dict[str, Any] = {"bootstrap.servers": self.address(listener), "reconnect.backoff.max.ms": 500}
        if "SASL" in listener or "SSL" in listener:
            known["security.protocol"] = listener
        if "SSL" in listener:
            known["ssl.ca.location"] = str(self.authority)
        if "SASL" not in listener:
            return known
        known["sasl.mechanism"] = mechanism
        if mechanism == "OAUTHBEARER":
            token = {"enable.sasl.oauthbearer.unsecure.jwt": True, "sasl.oauthbearer.config": f"principal={user}"}
            return {**known, **token}
        return {**known, "sasl.username": user, "sasl.password": user}

    def configure(self) -> None:
        folder = self.base / "tls"
        folder.mkdir()
        authority = certificates.authority(folder)
        authority.issue("server", "127.0.0.1")
        for user in USERS:
            authority.issue(user)

    def start(self) -> Self:
        (self.base / "server.properties").write_text(self._configuration())
        super().start()
        self._have_group_coordinator()
        return self

    def command(self) -> Sequence[str]:
        scram = [("--add-scram", f"SCRAM-SHA-256=[name={user},password={user},iterations=4096]") for user in USERS]
        return [
            *java(self._java), "-Xms64M", "-Xmx384M",
            f"-Djava.io.tmpdir={self.base}", "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", class_path(), "Launch",
            f"{self.base}/server.properties", "--cluster-id", _CLUSTER_ID, *(part for pair in scram for part in pair),
        ]  # fmt: skip

    def _configuration(self) -> str:
        replicas = min(3, len(self.voters))
        listeners = [*((name, self.port(name)) for name in LISTENERS), ("CONTROLLER", self.voters[self.node])]
        module = "org.apache.kafka.common.security."
        values = {
            "NODE": self.node,
            "VOTERS": ",".join(f"{node}@127.0.0.1:{port}" for node, port in self.voters.items()),
            "LISTENERS": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners),
            "DATA": self.base / "data",
            "CERTIFICATE": self.base / "tls" / "server.pem",
            "AUTHORITY": self.authority,
            "SASL": "\n".join(
                f"listener.name.{listener}.{mechanism}.sasl.jaas.config={module}{login};"
                for listener in ("sasl_plaintext", "sasl_ssl")
                for mechanism, login in _LOGIN.items()
            ),
            "REPLICAS": replicas,
            "MIN_ISR": replicas // 2 + replicas % 2,
        }
        text = (_FIXTURES / "server.properties").read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        return text + "".join(f"{name}={value}\n" for name, value in self._properties.items())

    def _answers(self) -> bool:
        """Return True if each listener takes a login, and answers that this node serves."""
        return all(self._serves(listener) for listener in LISTENERS)

    def _serves(self, listener: str) -> bool:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        client = AdminClient({**self.client(listener), "log_level": 0})
        with contextlib.suppress(KafkaException):
            if self.node in client.list_topics(timeout=5).brokers:
                return True
        time.sleep(0.1)
        return False

    def _have_group_coordinator(self) -> None:
        """Have Kafka make the topic that it keeps groups in, which the first who asks waits for."""
        from confluent_kafka import Consumer, KafkaException, TopicPartition

        with Consumer({**self.client(), "group.id": "warm-up", "log_level": 0}) as consumer:
            deadline = time.monotonic() + START_S
            while time.monotonic() < deadline:
                with contextlib.suppress(KafkaException):
                    consumer.committed([TopicPartition("warm-up", 0)], timeout=10)
                    return
                time.sleep(0.1)
        raise RuntimeError(f"no coordinator of groups:\n{self.log.read_text(errors='replace')[-3000:]}")


class KafkaCluster:
    """Three nodes, of which one may fail: what is confirmed by two is kept."""

    def __init__(self, base: Path, properties: Mapping[str, str] | None = None, size: int = 3) -> None:
        known = {"min.insync.replicas": "2", **(properties or {})}
        self.nodes = [Kafka(base / f"node{number}", known, node=number) for number in range(1, size + 1)]
        voters = {number: port for node in self.nodes for number, port in node.voters.items()}
        for node in self.nodes:
            node.voters = voters

    @property
    def addresses(self) -> str:
        return ",".join(node.address() for node in self.nodes)

    @property
    def url(self) -> str:
        return f"kafka://{self.addresses}"

    def client(self) -> dict[str, Any]:
        return {**self.nodes[0].client(), "bootstrap.servers": self.addresses}

    def start(self) -> Self:
        # None serves before two of them do.
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(Kafka.start, self.nodes))
        return self

    def remove(self) -> None:
        for node in self.nodes:
            node.remove()


@contextmanager
def running(base: Path, properties: Mapping[str, str] | None = None) -> Iterator[Kafka]:
    """Run a Kafka of a test's own, which it may stop, kill and start again."""
    server = Kafka(base, properties)
    try:
        yield server.start()
    finally:
        server.remove()


@contextmanager
def running_cluster(base: Path, properties: Mapping[str, str] | None = None) -> Iterator[KafkaCluster]:
    """Run three nodes, about 900 MB of memory."""
    cluster = KafkaCluster(base, properties)
    try:
        yield cluster.start()
    finally:
        cluster.remove()


def java(options: Sequence[str] = ()) -> list[str]:
    """Return the start of a command that runs a class of `class_path()`, or one that comes with its own folder."""
    return ["env", "-C", str(home()), "java", *QUICK_START, *(options or [_shared_classes()])]


def class_path(*folders: Path) -> str:
    """Return Kafka's jars, then `folders`. A class data archive is valid for one class path: the jars are relative."""
    jars = sorted(f"lib/{jar.name}" for jar in (home() / "lib").iterdir())
    return ":".join(["launch.jar", *jars, *map(str, folders)])


def home() -> Path:
    """Return the folder with Kafka's jars, downloaded once."""
    return maven.kafka(_FIXTURES / "Launch.java")


def _shared_classes() -> str:
    """Return the option that has the JVM map its classes in place of loading them: half of a start.

    The archive is what a first run leaves; another JVM ignores it.
    """

    def get(folder: Path) -> None:
        server = Kafka(folder / "server", java=[f"-XX:ArchiveClassesAtExit={folder}/classes.jsa"])
        try:
            server.start().stop()
        finally:
            server.remove()

    return f"-XX:SharedArchiveFile={maven.once(f'{home().name}-classes', get)}/classes.jsa"
