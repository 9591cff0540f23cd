"""A real RabbitMQ that speaks TLS itself, and takes the name in a client's certificate for a login."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ

_CONFIG = """listeners.ssl.default = 127.0.0.1:{port}
ssl_options.cacertfile = {authority}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {certificate}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = {asks}
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = EXTERNAL
ssl_cert_login_from = common_name
"""


class TlsRabbitMQ(RabbitMQ):
    """Shows `certificate`, a PEM file with its key. Trusts clients of `authority`, and with `asks` no others."""

    def __init__(self, base: Path, certificate: Path, authority: Authority, *, asks: bool) -> None:
        super().__init__(base)
        self.tls_port = free_port()
        config, plugins = base / "conf" / "rabbitmq.conf", base / "conf" / "enabled_plugins"
        more = _CONFIG.format(
            port=self.tls_port, authority=authority.file, certificate=certificate, asks="true" if asks else "false"
        )
        config.write_text(config.read_text() + more)
        plugins.write_text(plugins.read_text().replace("]", ",rabbitmq_auth_mechanism_ssl]"))

    @property
    def tls_url(self) -> str:
        return f"amqps://127.0.0.1:{self.tls_port}"


@contextmanager
def running(base: Path, certificate: Path, authority: Authority, *, asks: bool) -> Iterator[TlsRabbitMQ]:
    server = TlsRabbitMQ(base, certificate, authority, asks=asks)
    try:
        server.start()
        yield server
    finally:
        server.remove()
