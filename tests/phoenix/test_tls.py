"""Wss: verified by default, with an authority's file, and with checks switched off."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from infertool.errors import UnreachableError
from tests.phoenix.collect import delivery, pushes
from tests.support import certificates
from tests.support.phoenix_fake import FakePhoenix, fake_phoenix


@pytest.fixture
def authority(tmp_path: Path) -> certificates.Authority:
    return certificates.authority(tmp_path)


def server_with(authority: certificates.Authority, address: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("server", address))
    return context


def wss(fake: FakePhoenix) -> str:
    return f"wss://127.0.0.1:{fake.port}/socket/websocket"


def test_trusted_authority(authority: certificates.Authority) -> None:
    """Reader and writer share one TLS session here, with traffic both ways."""
    with (
        fake_phoenix(tls=server_with(authority)) as fake,
        delivery(wss(fake), tls_ca_file=str(authority.file)) as (made, owner),
    ):
        made.push(pushes(2000))
        assert made.drain(30)
        assert len(owner.proved()) == 2000


def test_unknown_authority_is_refused(authority: certificates.Authority) -> None:
    with (
        fake_phoenix(tls=server_with(authority)) as fake,
        pytest.raises(UnreachableError, match="not trusted") as caught,
        delivery(wss(fake)),
    ):
        pass
    assert "tls_ca_file" in caught.value.advice


def test_wrong_host_is_refused(authority: certificates.Authority) -> None:
    with (
        fake_phoenix(tls=server_with(authority, "127.0.0.2")) as fake,
        pytest.raises(UnreachableError, match="not trusted"),
        delivery(wss(fake), tls_ca_file=str(authority.file)),
    ):
        pass


def test_verification_switched_off(authority: certificates.Authority) -> None:
    with fake_phoenix(tls=server_with(authority)) as fake, delivery(wss(fake), tls_verify=False) as (made, _):
        made.push(pushes(3))
        assert made.drain(90)


def test_losses_over_tls(authority: certificates.Authority) -> None:
    with (
        fake_phoenix(tls=server_with(authority)) as fake,
        delivery(wss(fake), tls_ca_file=str(authority.file)) as (made, owner),
    ):
        fake.peers[0].drop()
        made.push(pushes(100))
        assert made.drain(90)
        assert sorted(owner.proved()) == list(range(100))
