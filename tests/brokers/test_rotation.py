"""Passwords and certificates are read again for each connection; a file that is away is waited for."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from infertool.net.connection_state import ConnectionState
from tests.brokers.conftest import Connect
from tests.support import certificates
from tests.support.activemq import ActiveMQ
from tests.support.brokers import Links, Server, new_queue, numbered, send_all, take
from tests.support.proxy import Proxy
from tests.support.secretfiles import secret_in


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("admin\n")
    return file


@pytest.mark.activemq
def test_a_rotated_password_is_used_by_the_next_connection(
    activemq: ActiveMQ, connect: Connect, links: Links, password: Path
) -> None:
    with Proxy(activemq.stomp_port) as proxy:
        queue = new_queue()
        broker = connect(proxy.url, links, password=secret_in(password, "broker.password"), reconnect_max_s=0.2)
        password.write_text("of yesterday\n")
        proxy.cut()
        refused = _wait_for_loss(links, "is invalid")
        assert "of yesterday" not in refused
        password.write_text("admin\n")
        links.wait_for(ConnectionState.CONNECTED, 2)
        send_all(broker, numbered(queue, 1))
        broker.close(5)


@pytest.mark.activemq
def test_a_browse_uses_the_password_of_its_own_time(activemq: ActiveMQ, connect: Connect, password: Path) -> None:
    """The connection it starts from was made with another one, which may be revoked by now."""
    queue = new_queue()
    broker = connect(activemq.url, password=secret_in(password, "broker.password"))
    send_all(broker, numbered(queue, 1))
    password.write_text("of yesterday\n")
    with pytest.raises(Exception, match="is invalid"):
        broker.browse(queue, limit=10, timeout_s=10)
    password.write_text("admin\n")
    assert len(broker.browse(queue, limit=10, timeout_s=10).messages) == 1
    broker.close(5)


def test_a_password_file_that_is_away_is_waited_for(
    server: Server, proxy: Proxy, connect: Connect, links: Links, password: Path
) -> None:
    queue = new_queue()
    broker = connect(proxy.url, links, password=secret_in(password, "broker.password"), reconnect_max_s=0.2)
    subscription = broker.subscribe(queue, window=10)
    for content in (None, "", "\n"):
        connected = len(links.of(ConnectionState.CONNECTED))
        if content is None:
            password.unlink()
        else:
            password.write_text(content)
        proxy.cut()
        _wait_for_loss(links, "broker.password_file", after=connected)
        password.write_text("admin\n")
        links.wait_for(ConnectionState.CONNECTED, connected + 1)
        send_all(broker, numbered(queue, 1))
        subscription.ack(take(subscription, 1))
    broker.close(5)


def test_a_password_with_a_line_break_is_not_sent(
    server: Server, proxy: Proxy, connect: Connect, links: Links, password: Path
) -> None:
    broker = connect(proxy.url, links, password=secret_in(password, "broker.password"), reconnect_max_s=0.2)
    password.write_bytes(b"admin\0receipt:1\n")
    proxy.cut()
    assert "receipt" not in _wait_for_loss(links, "line break")
    password.write_text("admin\n")
    links.wait_for(ConnectionState.CONNECTED, 2)
    broker.close(5)


def test_a_renewed_client_certificate_is_used_by_the_next_connection(
    server: Server, connect: Connect, links: Links, tmp_path: Path
) -> None:
    """The server trusts another authority from now on; so do we, with a certificate of it."""
    old, new = (certificates.authority(tmp_path, name) for name in ("old", "new"))
    files = {name: tmp_path / f"{name}.file.pem" for name in ("ca", "client")}
    _install(old, files)
    settings = {"tls_ca_file": str(files["ca"]), "tls_cert_file": str(files["client"]), "reconnect_max_s": 0.2}
    context = _server_context(old)
    with Proxy(server.stomp_port, tls=context) as proxy:
        broker = connect(proxy.url, links, **settings)
        context.load_cert_chain(new.issue("server", "127.0.0.1"))
        files["client"].unlink()
        proxy.cut()
        _wait_for_loss(links, "broker.tls_cert_file")
        _install(new, files)
        context.load_verify_locations(new.file)
        links.wait_for(ConnectionState.CONNECTED, 2)
        send_all(broker, numbered(new_queue(), 1))
        broker.close(5)


def _server_context(authority: certificates.Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("server", "127.0.0.1"))
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _install(authority: certificates.Authority, files: dict[str, Path]) -> None:
    files["ca"].write_bytes(authority.file.read_bytes())
    files["client"].write_bytes(authority.issue("client").read_bytes())


def _wait_for_loss(links: Links, words: str, *, after: int = 0) -> str:
    """Return the reason of a loss that says `words`, of those after the connection of that number."""
    number = 1
    while True:
        loss = links.wait_for(ConnectionState.LOST, number)
        if words in loss.reason and loss.epoch >= after:
            return loss.reason
        number += 1
