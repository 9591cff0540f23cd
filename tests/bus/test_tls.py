"""A consumer whose broker and channel server both speak TLS, and want certificates that it has."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bus.conftest import Bus
from tests.bus.test_bad_brokers import RECONNECT, Address
from tests.bus.test_settlement import assert_each_once
from tests.support import certificates
from tests.support.certificates import Authority
from tests.support.proxy import Proxy
from tests.support.tlsbroker import CONNECTORS, TlsActiveMQ, running

pytestmark = pytest.mark.activemq

LONG = 180


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return certificates.authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[TlsActiveMQ]:
    certificate = authority.issue("broker", "127.0.0.1")
    with running(tmp_path_factory.mktemp("activemq") / "base", certificate, authority) as broker:
        yield broker


def wanting_certificates(certificate: Path, authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("connector", CONNECTORS)
def test_each_event_is_settled_once_over_a_restart(
    embedded_bus: Bus, tls_broker: TlsActiveMQ, authority: Authority, connector: str
) -> None:
    """The queue is filled, and judged, over the broker's plain connector; the consumer has the one with TLS."""
    bus, client = embedded_bus, str(authority.issue("client"))
    hub_tls = wanting_certificates(authority.issue("hub", "127.0.0.1"), authority)
    place = Address(f"stomp+ssl://127.0.0.1:{tls_broker.port(connector, asks=True)}", tls_broker.stomp_port)
    secure = Bus(place, bus.hub, bus.folder, bus.viewer, bus.queue, bus.consumers)
    files = {
        f"INFERTOOL_{group}__TLS_{name}_FILE": path
        for group in ("BROKER", "PHOENIX")
        for name, path in (("CA", str(authority.file)), ("CERT", client))
    }
    ids = secure.send(300, poison=10)
    with Proxy(bus.hub.port, tls=hub_tls) as hub:
        consumer = secure.consume(
            "--phoenix", f"wss://127.0.0.1:{hub.port}/socket/websocket", "--concurrency", "4", "--window", "40",
            model="sim:?min_ms=5&max_ms=15&failure_rate=0", **files, **RECONNECT,
        )  # fmt: skip
        assert bus.viewer.wait(100, LONG)
        tls_broker.stop()
        tls_broker.start()
        assert bus.viewer.wait(300, LONG)
        consumer.terminate()
        summary = consumer.finish()
        assert summary["reconnects"] >= 1
        secure.consume("--exit-when-idle", "1s", "--publish", "none", **files).finish()
    assert "Traceback" not in consumer.log.read_text()
    assert assert_each_once(secure, ids) == (290, 10)
