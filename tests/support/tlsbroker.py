"""A real ActiveMQ that speaks TLS itself, with a key store of its own, on each of its two STOMP connectors for TLS."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.support.activemq import ActiveMQ, install
from tests.support.certificates import Authority
from tests.support.ports import free_port, wait_for_port

# `stomp+ssl` serves each connection with a thread, `stomp+nio+ssl` all of them with a few: two implementations of TLS.
CONNECTORS = ("stomp+ssl", "stomp+nio+ssl")
_PASSWORD = "changeit"


class TlsActiveMQ(ActiveMQ):
    """Shows `certificate`, a PEM file with its key. Trusts the clients of `authority`, and asks for them where told."""

    def __init__(self, base: Path, certificate: Path, authority: Authority) -> None:
        super().__init__(base)
        self._ports = {(name, asks): free_port() for name in CONNECTORS for asks in (False, True)}
        keys, trusted = base / "conf" / "keys.p12", base / "conf" / "trusted.p12"
        keys.write_bytes(_key_store(certificate.read_bytes()))
        _trust(authority.file, trusted)
        config = base / "conf" / "activemq.xml"
        text = config.read_text()
        # The schema wants the elements of a broker in the order of their names.
        text = text.replace("<systemUsage><systemUsage>", f"{_context(keys, trusted)}<systemUsage><systemUsage>")
        connectors = "".join(_connector(*kind, port) for kind, port in self._ports.items())
        config.write_text(text.replace("</transportConnectors>", f"{connectors}</transportConnectors>"))

    def port(self, connector: str, *, asks: bool = False) -> int:
        """Return the port of a connector; with `asks`, of the one that wants a client certificate."""
        return self._ports[connector, asks]

    def start(self) -> None:
        super().start()
        for port in self._ports.values():
            wait_for_port(port, 240)


def _context(keys: Path, trusted: Path) -> str:
    stores = {"keyStore": keys, "trustStore": trusted}
    attributes = "".join(
        f' {name}="file:{path}" {name}Type="PKCS12" {name}Password="{_PASSWORD}"' for name, path in stores.items()
    )
    return f"<sslContext><sslContext{attributes}/></sslContext>"


def _connector(name: str, asks: bool, port: int) -> str:
    asking = "?transport.needClientAuth=true" if asks else ""
    return f'<transportConnector name="{name}-{port}" uri="{name}://127.0.0.1:{port}{asking}"/>'


def _key_store(pem: bytes) -> bytes:
    certificate, key = x509.load_pem_x509_certificate(pem), serialization.load_pem_private_key(pem, None)
    assert isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey)
    encryption = serialization.BestAvailableEncryption(_PASSWORD.encode())
    return pkcs12.serialize_key_and_certificates(b"broker", key, certificate, None, encryption)


def _trust(authority: Path, store: Path) -> None:
    """Write a store of one authority with Java's own tool: others leave out the mark that makes it a trusted one."""
    subprocess.run(
        ["keytool", "-importcert", "-noprompt", "-alias", "authority", "-file", authority, "-keystore", store,
         "-storetype", "PKCS12", "-storepass", _PASSWORD],
        check=True, capture_output=True,
    )  # fmt: skip


@contextlib.contextmanager
def running(base: Path, certificate: Path, authority: Authority) -> Iterator[TlsActiveMQ]:
    """Yield a broker that has started, and remove it."""
    install()
    broker = TlsActiveMQ(base, certificate, authority)
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()
