"""RabbitMQ's own TLS listener: what goes through it, client certificates, and the line that tells why it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infertool.errors import RefusedError, UnreachableError
from infertool.message import Outgoing
from infertool.rpc import Client
from infertool.secret import Secret
from tests.brokers.conftest import Connect
from tests.support import certificates
from tests.support.brokers import TIMEOUT_S, send_all, settings, take
from tests.support.certificates import Authority
from tests.support.tlsrabbitmq import TlsRabbitMQ, running
from tests.support.usual_pair import usual_server

pytestmark = pytest.mark.rabbitmq


@dataclass
class Secured:
    """A broker, what it is certified by, and the files of clients."""

    broker: TlsRabbitMQ
    ours: Authority
    asks: bool

    def trust(self, **more: Path) -> dict[str, str]:
        if self.asks:
            more = {"tls_cert_file": self.ours.issue("client"), **more}
        return {"tls_ca_file": str(self.ours.file), **{name: str(path) for name, path in more.items()}}


def _secured(folder: Path, *, asks: bool) -> Iterator[Secured]:
    ours = certificates.authority(folder)
    with running(folder / "base", ours.issue("broker", "127.0.0.1"), ours, asks=asks) as broker:
        with broker.pika() as channel:
            channel.queue_declare("q", durable=True)
        yield Secured(broker, ours, asks)


@pytest.fixture(scope="module", params=[False, True], ids=["any-client", "known-clients"])
def secured(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Secured]:
    yield from _secured(tmp_path_factory.mktemp("secured"), asks=request.param)


def test_large_and_many_both_ways(secured: Secured, connect: Connect) -> None:
    broker = connect(secured.broker.tls_url, **secured.trust())
    subscription = broker.subscribe("q", window=50)
    bodies = [b"%d " % n + b"x" * (1_000_000 if n % 50 == 0 else 10) for n in range(200)]
    send_all(broker, [Outgoing("q", body) for body in bodies])
    got: list[bytes] = []
    while len(got) < len(bodies):
        messages = take(subscription, min(50, len(bodies) - len(got)))
        subscription.ack(messages)
        got += [message.body for message in messages]
    assert got == bodies


def test_calls(secured: Secured) -> None:
    trusting = settings(secured.broker.tls_url, **secured.trust())
    with usual_server(secured.broker.amqp_port, "usual", lambda args: args), Client(trusting) as client:
        waiting = [client.call_nowait("usual", n, timeout_s=TIMEOUT_S, codec="msgpack") for n in range(200)]
        assert [call.result().value for call in waiting] == list(range(200))


def test_the_name_in_a_client_certificate_is_a_login(secured: Secured, connect: Connect) -> None:
    login = {"user": "", "password": Secret(""), "tls_cert_file": str(secured.ours.issue("named"))}
    url, trust = secured.broker.tls_url, {"tls_ca_file": str(secured.ours.file)}
    with pytest.raises(RefusedError) as refused:
        connect(url, **trust, **login)
    assert "\n" not in str(refused.value)
    secured.broker.admin.add_user("named", "unused")
    send_all(connect(url, **trust, **login), [Outgoing("q", b"")])


def test_clients_that_are_not_accepted(secured: Secured, connect: Connect, tmp_path: Path) -> None:
    strangers = certificates.authority(tmp_path, "strangers")
    url, trust = secured.broker.tls_url, {"tls_ca_file": str(secured.ours.file)}
    with pytest.raises(UnreachableError, match=r"certificate of amqps://.* is not accepted") as caught:
        connect(url, **secured.trust(tls_ca_file=strangers.file))
    assert "broker.tls_ca_file" in caught.value.advice
    with pytest.raises(UnreachableError, match="client certificate") as caught:
        connect(url, tls_cert_file=str(strangers.issue("stranger")), **trust)
    assert "\n" not in str(caught.value)
    if secured.asks:
        with pytest.raises(UnreachableError, match=r"client certificate.*tls_cert_file"):
            connect(url, **trust)
    else:
        connect(url, **trust)


def test_a_certificate_that_is_out_of_date(connect: Connect, tmp_path: Path) -> None:
    ours = certificates.authority(tmp_path)
    expired = ours.issue("broker", "127.0.0.1", ends_in=-certificates.DAY)
    with (
        running(tmp_path / "base", expired, ours, asks=False) as broker,
        pytest.raises(UnreachableError, match=r"certificate of amqps://.* is not accepted: certificate has expired"),
    ):
        connect(broker.tls_url, tls_ca_file=str(ours.file))
