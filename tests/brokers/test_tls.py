"""stomp+ssl: verified unless told otherwise, and safe with one thread reading while another writes."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from infertool.errors import UnreachableError
from infertool.message import Outgoing, Properties
from infertool.net.connection_state import ConnectionState
from tests.brokers.conftest import Connect
from tests.support import certificates
from tests.support.brokers import Links, Server, new_queue, numbered, send_all, take
from tests.support.certificates import Authority
from tests.support.proxy import Proxy


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return certificates.authority(tmp_path_factory.mktemp("certificates"))


def server_context(pem: Path, *, client_authority: Authority | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    if client_authority:
        context.load_verify_locations(client_authority.file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_both_directions_at_once(server: Server, connect: Connect, authority: Authority, links: Links) -> None:
    with Proxy(server.stomp_port, tls=server_context(authority.issue("server", "127.0.0.1"))) as proxy:
        queue, broker = new_queue(), connect(proxy.url, links, tls_ca_file=str(authority.file))
        subscription = broker.subscribe(queue, window=100)
        large = [Outgoing(queue, b"x" * 100_000, properties=Properties(persistent=False)) for _ in range(100)]
        send_all(broker, numbered(queue, 10))
        subscription.ack(take(subscription, 10))
        send_all(broker, large)
        subscription.ack(take(subscription, 100))
        proxy.cut()
        links.wait_for(ConnectionState.CONNECTED, 2)
        send_all(broker, numbered(queue, 10))
        assert len(take(subscription, 10)) == 10
        broker.close(5)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate(server: Server, connect: Connect, authority: Authority, version: ssl.TLSVersion) -> None:
    """Before TLS 1.3 the server looks at it within the handshake, since then after the client's part of it."""
    context = server_context(authority.issue("server", "127.0.0.1"), client_authority=authority)
    context.maximum_version = version
    stranger = certificates.authority(authority.folder, "strangers").issue("stranger")
    with Proxy(server.stomp_port, tls=context) as proxy:
        trust = {"tls_ca_file": str(authority.file)}
        broker = connect(proxy.url, tls_cert_file=str(authority.issue("client")), **trust)
        send_all(broker, numbered(new_queue(), 1))
        with pytest.raises(UnreachableError, match=r"client certificate.*tls_cert_file"):
            connect(proxy.url, **trust)
        with pytest.raises(UnreachableError, match=r"accept the client certificate of broker\.tls_cert_file"):
            connect(proxy.url, tls_cert_file=str(stranger), **trust)
        broker.close(5)


@pytest.mark.parametrize(
    ("addresses", "trusted", "reason", "advice"),
    [
        (["127.0.0.2"], True, "IP address mismatch", "a name that the certificate has"),
        (["127.0.0.1"], False, "local issuer", "broker.tls_ca_file"),
    ],
)
def test_a_certificate_that_is_not_good_is_refused(
    server: Server,
    connect: Connect,
    authority: Authority,
    addresses: list[str],
    trusted: bool,
    reason: str,
    advice: str,
) -> None:
    with Proxy(server.stomp_port, tls=server_context(authority.issue("wrong", *addresses))) as proxy:
        trust = {"tls_ca_file": str(authority.file)} if trusted else {}
        with pytest.raises(UnreachableError, match=reason) as caught:
            connect(proxy.url, **trust)
        assert advice in caught.value.advice
        broker = connect(proxy.url, tls_verify=False)
        send_all(broker, numbered(new_queue(), 1))
        broker.close(5)


def test_tls_to_a_plain_port(server: Server, connect: Connect) -> None:
    with pytest.raises(UnreachableError, match=r"stomp\+ssl://127.0.0.1"):
        connect(f"stomp+ssl://127.0.0.1:{server.stomp_port}", connect_timeout_s=1.0)


def test_plain_to_a_tls_port(server: Server, connect: Connect, authority: Authority) -> None:
    with (
        Proxy(server.stomp_port, tls=server_context(authority.issue("server", "127.0.0.1"))) as proxy,
        pytest.raises(UnreachableError, match=r"ended the handshake|wants TLS"),
    ):
        connect(f"stomp://127.0.0.1:{proxy.port}")
