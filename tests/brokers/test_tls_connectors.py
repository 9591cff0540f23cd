"""ActiveMQ's own TLS connectors: what goes through them, and the line that tells why a connection cannot be made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infertool.errors import UnreachableError
from infertool.message import Outgoing
from tests.brokers.conftest import Connect
from tests.support import certificates
from tests.support.brokers import new_queue, send_all, take
from tests.support.certificates import Authority
from tests.support.running import CREDENTIALS, infertool
from tests.support.tlsbroker import CONNECTORS, TlsActiveMQ, running

pytestmark = pytest.mark.activemq


@dataclass
class Secured:
    """A broker, what it is certified by, and files of other clients."""

    broker: TlsActiveMQ
    ours: Authority
    strangers: Authority

    def url(self, connector: str, *, asks: bool = False, host: str = "127.0.0.1") -> str:
        return f"stomp+ssl://{host}:{self.broker.port(connector, asks=asks)}"

    def trust(self, **more: Path) -> dict[str, str]:
        return {"tls_ca_file": str(self.ours.file), **{name: str(path) for name, path in more.items()}}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    ours, strangers = certificates.authority(folder), certificates.authority(folder, "strangers")
    with running(folder / "base", ours.issue("broker", "127.0.0.1"), ours) as broker:
        yield Secured(broker, ours, strangers)


@pytest.fixture(scope="module")
def expired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("expired")
    ours = certificates.authority(folder)
    certificate = ours.issue("broker", "127.0.0.1", ends_in=-certificates.DAY)
    with running(folder / "base", certificate, ours) as broker:
        yield Secured(broker, ours, ours)


def refusal(connect: Connect, url: str, **changes: str) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        connect(url, **changes)
    assert "\n" not in str(caught.value)
    assert "_ssl.c" not in str(caught.value)
    return caught.value


@pytest.fixture(params=CONNECTORS)
def connector(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("asks", [False, True])
def test_large_and_many_both_ways(secured: Secured, connect: Connect, connector: str, asks: bool) -> None:
    trust = secured.trust(tls_cert_file=secured.ours.issue("client")) if asks else secured.trust()
    queue, broker = new_queue(), connect(secured.url(connector, asks=asks), **trust)
    subscription = broker.subscribe(queue, window=50)
    bodies = [b"%d " % n + b"x" * (1_000_000 if n % 50 == 0 else 10) for n in range(200)]
    send_all(broker, [Outgoing(queue, body) for body in bodies])
    got: list[bytes] = []
    while len(got) < len(bodies):
        messages = take(subscription, min(50, len(bodies) - len(got)))
        subscription.ack(messages)
        got += [message.body for message in messages]
    assert got == bodies
    broker.close(5)


def test_a_client_certificate_that_nobody_asks_for_is_no_harm(
    secured: Secured, connect: Connect, connector: str
) -> None:
    connect(secured.url(connector), **secured.trust(tls_cert_file=secured.ours.issue("client"))).close(5)


def test_an_authority_that_is_not_trusted(secured: Secured, connect: Connect, connector: str) -> None:
    for trust in ({}, {"tls_ca_file": str(secured.strangers.file)}):
        error = refusal(connect, secured.url(connector), **trust)
        assert "is not accepted: unable to get local issuer certificate" in error.what
        assert error.advice == "set broker.tls_ca_file to the PEM file of its authority"
    connect(secured.url(connector), tls_verify=False).close(5)


def test_another_host_name(secured: Secured, connect: Connect, connector: str) -> None:
    error = refusal(connect, secured.url(connector, host="localhost"), **secured.trust())
    assert error.what.endswith("certificate is not valid for 'localhost'")
    assert "connect by a name that the certificate has" in error.advice


def test_a_certificate_that_has_expired(expired: Secured, connect: Connect, connector: str) -> None:
    error = refusal(connect, expired.url(connector), **expired.trust())
    assert error.what.endswith("is not accepted: certificate has expired")
    assert "renewed" in error.advice


def test_a_client_certificate_is_missing(secured: Secured, connect: Connect, connector: str) -> None:
    error = refusal(connect, secured.url(connector, asks=True), **secured.trust())
    assert "a client certificate" in str(error)
    assert "broker.tls_cert_file" in error.advice


@pytest.mark.parametrize("which", ["untrusted", "expired"])
def test_a_client_certificate_is_not_good(secured: Secured, connect: Connect, connector: str, which: str) -> None:
    certificate = secured.strangers.issue("stranger")
    if which == "expired":
        certificate = secured.ours.issue("late", ends_in=-certificates.DAY)
    error = refusal(connect, secured.url(connector, asks=True), **secured.trust(tls_cert_file=certificate))
    assert "accept the client certificate of broker.tls_cert_file" in str(error)


@pytest.mark.parametrize("asks", [False, True])
def test_no_tls_to_a_connector_with(secured: Secured, connect: Connect, connector: str, asks: bool) -> None:
    url = secured.url(connector, asks=asks)
    error = refusal(connect, url.replace("stomp+ssl", "stomp"))
    assert "wants TLS" in error.what
    assert error.advice.endswith(url)


def test_tls_to_a_connector_without(secured: Secured, connect: Connect) -> None:
    port = secured.broker.stomp_port
    error = refusal(connect, f"stomp+ssl://127.0.0.1:{port}", **secured.trust())
    assert "speaks STOMP without TLS" in error.what
    assert error.advice.endswith(f"stomp://127.0.0.1:{port}")


def test_a_command_tells_it_in_one_line(secured: Secured, expired: Secured, connector: str) -> None:
    """Each of three causes: a certificate of the broker's, one of ours, and none of ours."""
    causes = [
        (expired.url(connector), expired.ours, "", "renewed"),
        (secured.url(connector, asks=True), secured.ours, "", "broker.tls_cert_file"),
        (secured.url(connector, asks=True), secured.ours, f"{secured.strangers.issue('command')}", "accept the client"),
    ]
    for url, authority, certificate, words in causes:
        done = infertool(
            "consume", "--broker", url, "--publish", "none", "--model", "sim:", **CREDENTIALS,
            INFERTOOL_BROKER__TLS_CA_FILE=str(authority.file), INFERTOOL_BROKER__TLS_CERT_FILE=certificate,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (3, "")
        [line] = [line for line in done.stderr.splitlines() if line.startswith("infertool: ")]
        assert words in line
        assert "Traceback" not in done.stderr
