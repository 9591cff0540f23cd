"""Wss: verified by default, with an authority's file, and with checks switched off."""

from __future__ import annotations

from pathlib import Path

import pytest

from infertool.errors import UnreachableError
from tests.phoenix.collect import delivery, pushes
from tests.support import certificates
from tests.support.phoenix_fake import FakePhoenix, fake_phoenix


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    return certificates.make(tmp_path_factory.mktemp("tls"))


def wss(fake: FakePhoenix, host: str = "127.0.0.1") -> str:
    return f"wss://{host}:{fake.port}/socket/websocket"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_trusted_authority(files: certificates.Certificates, host: str) -> None:
    """Reader and writer share one TLS session here, with traffic both ways."""
    with (
        fake_phoenix(tls=files.server_context()) as fake,
        delivery(wss(fake, host), tls_ca_file=str(files.authority)) as (made, owner),
    ):
        made.push(pushes(2000))
        assert made.drain(30)
        assert len(owner.proved()) == 2000


def test_unknown_authority_is_refused(files: certificates.Certificates) -> None:
    with (
        fake_phoenix(tls=files.server_context()) as fake,
        pytest.raises(UnreachableError, match="not trusted") as caught,
        delivery(wss(fake)),
    ):
        pass
    assert "tls_ca_file" in caught.value.advice


def test_wrong_host_is_refused(tmp_path: Path) -> None:
    files = certificates.make(tmp_path, host="elsewhere.example")
    with (
        fake_phoenix(tls=files.server_context()) as fake,
        pytest.raises(UnreachableError, match="not trusted"),
        delivery(wss(fake, "localhost"), tls_ca_file=str(files.authority)),
    ):
        pass


def test_verification_switched_off(files: certificates.Certificates) -> None:
    with fake_phoenix(tls=files.server_context()) as fake, delivery(wss(fake), tls_verify=False) as (made, _):
        made.push(pushes(3))
        assert made.drain(20)


def test_losses_over_tls(files: certificates.Certificates) -> None:
    with (
        fake_phoenix(tls=files.server_context()) as fake,
        delivery(wss(fake), tls_ca_file=str(files.authority)) as (made, owner),
    ):
        fake.peers[0].drop()
        made.push(pushes(100))
        assert made.drain(20)
        assert sorted(owner.proved()) == list(range(100))
