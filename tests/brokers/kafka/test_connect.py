"""Connecting to Kafka: logins, TLS, and what is said of servers that cannot be used."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.port import Move, Subscription
from infertool.errors import ConnectionLostError, InfertoolError, RefusedError, SettingsError, UnreachableError
from infertool.message import Message, Outgoing
from infertool.secret import Secret
from infertool.settings.broker import BrokerSettings
from tests.brokers.kafka.conftest import OpenBroker
from tests.support.kafka import Kafka
from tests.support.kafkaproxy import KafkaFrameProxy
from tests.support.rawkafka import RawKafka
from tests.support.running import LONG
from tests.support.secretfiles import secret_in

pytestmark = pytest.mark.kafka

_SECRET = "s3cret-of-the-tests"
_METADATA = (3).to_bytes(2)


def _part(table: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(table).encode()).decode().rstrip("=")


def _token(user: str) -> str:
    now = int(time.time())
    return f"{_part({'alg': 'none'})}.{_part({'sub': user, 'iat': now, 'exp': now + 86_400})}."


def _refused(url: str, **settings: Any) -> InfertoolError:
    broker = brokers.open(BrokerSettings(url=url, **{"connect_timeout_s": 5.0, **settings}))
    try:
        with pytest.raises(InfertoolError) as caught:
            broker.connect()
    finally:
        broker.close(1)
    return caught.value


@pytest.mark.parametrize(
    ("listener", "scheme", "settings"),
    [
        ("SASL_PLAINTEXT", "kafka", {"user": "guest", "password": Secret("guest")}),
        (
            "SASL_PLAINTEXT", "kafka",
            {"user": "guest", "password": Secret("guest"), "kafka": {"sasl": {"mechanism": "SCRAM-SHA-256"}}},
        ),
        (
            "SASL_SSL", "kafka+ssl",
            {"user": "guest", "password": Secret("guest"), "kafka": {"sasl.mechanism": "SCRAM-SHA-256"}},
        ),
        (
            "SASL_PLAINTEXT", "kafka",
            {"user": "guest", "password": Secret(_token("guest")), "kafka": {"sasl.mechanism": "OAUTHBEARER"}},
        ),
        (
            "SASL_PLAINTEXT", "kafka",
            {"user": "guest", "kafka": {"sasl.mechanism": "OAUTHBEARER", "enable.sasl.oauthbearer.unsecure.jwt": True}},
        ),
        ("SSL", "kafka+ssl", {}),
    ],
    ids=["plain", "scram", "scram-tls", "token", "unsigned", "certificate"],
)  # fmt: skip
def test_logins(kafka: Kafka, open_kafka: OpenBroker, listener: str, scheme: str, settings: dict[str, Any]) -> None:
    if scheme == "kafka+ssl":
        settings = {**settings, "tls_ca_file": str(kafka.authority)}
    if listener == "SSL":
        settings = {**settings, "tls_cert_file": str(kafka.certificate("guest"))}
    broker = open_kafka(f"{scheme}://{kafka.address(listener)}", **settings)
    assert "Apache Kafka" in broker.connection_facts().product


@pytest.mark.parametrize(
    ("listener", "scheme", "settings", "kind", "words"),
    [
        ("SASL_PLAINTEXT", "kafka", {"user": "guest"}, RefusedError, "refused the login.*check broker.user"),
        (
            "SASL_PLAINTEXT", "kafka", {"user": "guest", "kafka": {"sasl.mechanism": "SCRAM-SHA-256"}}, RefusedError,
            "refused the login",
        ),
        (
            "SASL_PLAINTEXT", "kafka", {"user": "guest", "kafka": {"sasl.mechanism": "SCRAM-SHA-512"}}, RefusedError,
            "Unsupported SASL mechanism",
        ),
        ("SASL_PLAINTEXT", "kafka", {"connect_timeout_s": 2.0}, RefusedError, "does it want a login"),
        ("SSL", "kafka", {"connect_timeout_s": 2.0}, UnreachableError, r"wants TLS; use kafka\+ssl://"),
        ("PLAINTEXT", "kafka+ssl", {}, UnreachableError, "without TLS|ended the connection"),
        ("SSL", "kafka+ssl", {"tls_ca_file": ""}, UnreachableError, "is not accepted.*broker.tls_ca_file"),
    ],
    ids=["password", "scram", "mechanism", "no-login", "tls", "no-tls", "authority"],
)  # fmt: skip
def test_refusals_say_what_to_do_and_show_no_secret(
    kafka: Kafka, listener: str, scheme: str, settings: dict[str, Any], kind: type, words: str
) -> None:
    known = {"password": Secret(_SECRET), "tls_ca_file": str(kafka.authority), **settings}
    fault = _refused(f"{scheme}://{kafka.address(listener)}", **known)
    assert isinstance(fault, kind)
    assert re.search(words, str(fault)), str(fault)
    assert _SECRET not in repr(fault) + str(fault) + repr(known)


def test_a_cluster_that_is_slow_wants_no_login(kafka: Kafka) -> None:
    late = threading.Event()

    def to_server(request: bytes) -> bytes:
        is_diagnosis = request[2:4] == b"\x00\x01"
        if request[:2] == _METADATA and not is_diagnosis:
            late.wait(LONG)
        return request

    with KafkaFrameProxy(kafka.port(), to_server=to_server) as proxy:
        fault = _refused(f"kafka://127.0.0.1:{proxy.port}", connect_timeout_s=2.0)
        late.set()
    assert isinstance(fault, UnreachableError)
    assert "did not tell of its cluster within 2 s" in str(fault)


def test_a_dead_letter_waits_for_a_password_that_cannot_be_read(
    kafka: Kafka, raw_kafka: RawKafka, open_kafka: OpenBroker, tmp_path: Path
) -> None:
    """What sends is made with the first message, after the connection."""
    file, topic, dead = tmp_path / "password", raw_kafka.topic(), raw_kafka.topic()
    file.write_text("admin")
    broker = open_kafka(
        kafka.topic_url(topic, "SASL_PLAINTEXT", group=topic), user="admin", password=secret_in(file, "broker.password")
    )
    subscription = broker.subscribe(topic, window=10)
    raw_kafka.send(topic, b"1")
    file.unlink()
    with pytest.raises(ConnectionLostError, match="cannot be used"):
        subscription.move([Move(_next(subscription), Outgoing(dead, b"1"))], LONG)
    ends: list[tuple[Any, Exception | None]] = []
    broker.send_all([(Outgoing(dead, b"2"), "token")], ends.extend)
    assert [(token, type(error)) for token, error in ends] == [("token", ConnectionLostError)]
    file.write_text("admin")
    subscription.move([Move(_next(subscription), Outgoing(dead, b"1"))], LONG)
    assert [record.value() for record in raw_kafka.all(dead)] == [b"1"]


def _next(subscription: Subscription) -> Message:
    deadline = time.monotonic() + LONG
    while not (messages := subscription.receive(1, 1.0)):
        assert time.monotonic() < deadline
    return messages[0]


def test_of_several_hosts_one_that_answers_is_enough(kafka: Kafka, open_kafka: OpenBroker) -> None:
    broker = open_kafka(f"kafka://127.0.0.1:1,nowhere.invalid:9092,{kafka.address()}")
    assert broker.measure("no.such.topic", 10) is None


def test_hosts_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infertool.net.identify._PROBE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_port = silent.getsockname()[1]
        for place, words in {
            "127.0.0.1:1": "nothing listens at kafka://127.0.0.1:1",
            "nowhere.invalid": "the host name 'nowhere.invalid' of kafka://nowhere.invalid:9092 is unknown",
            "a..b": "the host name 'a..b' of kafka://a..b:9092 is unknown",
            "127.0.0.1:1,nowhere.invalid": "no broker can be used",
            f"127.0.0.1:{silent_port}": "accepts connections but did not answer",
        }.items():
            fault = _refused(f"kafka://{place}", connect_timeout_s=1.0)
            assert isinstance(fault, UnreachableError)
            assert words in str(fault)


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"acks": 1}, "acks is not for this setting; leave it out"),
        ({"bootstrap": {"servers": "x"}}, "bootstrap.servers is not for this setting; use broker.url"),
        ({"no.such": 1}, 'No such configuration property: "no.such"'),
        ({"ssl.key.pem": _SECRET}, "cannot be used"),
        ({"linger.ms": [1]}, "linger.ms is no text, number or truth value"),
        ({"session.timeout.ms": "soon"}, "session.timeout.ms is no number of milliseconds"),
    ],
)
def test_properties_that_cannot_be_used(properties: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        brokers.open(BrokerSettings(url="kafka+ssl://127.0.0.1:1", kafka=properties)).connect()
    assert words in str(caught.value)
    assert caught.value.key == "broker.kafka"
    assert _SECRET not in str(caught.value)
