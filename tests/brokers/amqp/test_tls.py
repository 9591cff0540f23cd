"""amqps: verified unless told otherwise, with client certificates that are read again for each connection."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from infertool.errors import UnreachableError
from infertool.message import Outgoing
from infertool.net.connection_state import ConnectionState
from tests.brokers.amqp.conftest import Declare
from tests.brokers.conftest import Connect
from tests.support import certificates
from tests.support.amqpproxy import AmqpProxy
from tests.support.brokers import TIMEOUT_S, Links, numbered, send_all, take
from tests.support.certificates import Authority
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return certificates.authority(tmp_path_factory.mktemp("certificates"))


def server_context(authority: Authority, *, wants_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("server", "127.0.0.1"))
    if wants_client:
        context.load_verify_locations(authority.file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_both_directions_and_again_after_a_cut(
    rabbitmq: RabbitMQ, declare: Declare, connect: Connect, authority: Authority, links: Links
) -> None:
    queue = declare()
    with AmqpProxy(rabbitmq.amqp_port, tls=server_context(authority)) as proxy:
        assert proxy.url.startswith("amqps://")
        broker = connect(proxy.url, links, tls_ca_file=str(authority.file))
        subscription = broker.subscribe(queue, window=100)
        send_all(broker, [Outgoing(queue, b"x" * 300_000) for _ in range(20)])
        subscription.ack(take(subscription, 20))
        proxy.cut()
        links.wait_for(ConnectionState.CONNECTED, 2)
        send_all(broker, numbered(queue, 10))
        assert len(take(subscription, 10)) == 10
        broker.close(TIMEOUT_S)


def test_a_certificate_of_nobody_that_we_know(rabbitmq: RabbitMQ, connect: Connect, authority: Authority) -> None:
    with (
        AmqpProxy(rabbitmq.amqp_port, tls=server_context(authority)) as proxy,
        pytest.raises(UnreachableError, match=r"certificate of amqps://.* is not accepted") as caught,
    ):
        connect(proxy.url)
    assert "broker.tls_ca_file" in caught.value.advice


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate_is_read_again(
    rabbitmq: RabbitMQ, connect: Connect, authority: Authority, links: Links, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = server_context(authority, wants_client=True)
    context.maximum_version = version
    stranger = certificates.authority(authority.folder, "strangers").issue("stranger")
    file: Path = tmp_path / "client.pem"
    file.write_bytes(authority.issue("client").read_bytes())
    with AmqpProxy(rabbitmq.amqp_port, tls=context) as proxy:
        trust = {"tls_ca_file": str(authority.file)}
        with pytest.raises(UnreachableError, match=r"client certificate.*tls_cert_file"):
            connect(proxy.url, **trust)
        broker = connect(proxy.url, links, tls_cert_file=str(file), **trust)
        file.write_bytes(stranger.read_bytes())
        proxy.cut()
        lost = links.wait_for(ConnectionState.LOST, 2)
        assert "the client certificate of broker.tls_cert_file" in lost.reason
        file.write_bytes(authority.issue("renewed").read_bytes())
        links.wait_for(ConnectionState.CONNECTED, 2)
        broker.close(TIMEOUT_S)


def test_tls_asked_of_a_plain_port_and_the_other_way_round(
    rabbitmq: RabbitMQ, connect: Connect, authority: Authority
) -> None:
    with pytest.raises(UnreachableError, match="without TLS") as caught:
        connect(f"amqps://127.0.0.1:{rabbitmq.amqp_port}", connect_timeout_s=15)
    assert f"amqp://127.0.0.1:{rabbitmq.amqp_port}" in caught.value.advice
    with (
        AmqpProxy(rabbitmq.amqp_port, tls=server_context(authority)) as proxy,
        pytest.raises(UnreachableError, match="wants TLS") as caught,
    ):
        connect(proxy.url.replace("amqps", "amqp"), connect_timeout_s=15)
    assert "amqps://" in caught.value.advice
