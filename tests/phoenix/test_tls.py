"""Wss: verified by default, with an authority's file, and with checks switched off."""

from __future__ import annotations

import datetime as dt
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


def server_with(
    authority: certificates.Authority,
    address: str = "127.0.0.1",
    *,
    ends_in: dt.timedelta = certificates.DAY,
    asks: bool = False,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("server", address, ends_in=ends_in))
    if asks:
        context.load_verify_locations(authority.file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def rejection(tls: ssl.SSLContext | None, scheme: str = "wss", **settings: str) -> UnreachableError:
    with (
        fake_phoenix(tls=tls) as fake,
        pytest.raises(UnreachableError) as caught,
        delivery(wss(fake).replace("wss", scheme), **settings),
    ):
        pass
    return caught.value


def wss(fake: FakePhoenix) -> str:
    return f"wss://127.0.0.1:{fake.port}/socket/websocket"


def test_trusted_authority(authority: certificates.Authority) -> None:
    """Reader and writer share one TLS session here, with traffic both ways."""
    with (
        fake_phoenix(tls=server_with(authority)) as fake,
        delivery(wss(fake), tls_ca_file=str(authority.file)) as (made, owner),
    ):
        made.push(pushes(2000))
        assert made.drain(90)
        assert len(owner.confirmed()) == 2000


def test_unknown_authority_is_refused(authority: certificates.Authority) -> None:
    assert "phoenix.tls_ca_file" in rejection(server_with(authority)).advice


def test_wrong_host_is_refused(authority: certificates.Authority) -> None:
    error = rejection(server_with(authority, "127.0.0.2"), tls_ca_file=str(authority.file))
    assert "IP address mismatch" in error.what
    assert "a name that the certificate has" in error.advice


def test_expired_certificate_is_refused(authority: certificates.Authority) -> None:
    error = rejection(server_with(authority, ends_in=-certificates.DAY), tls_ca_file=str(authority.file))
    assert "certificate has expired" in error.what
    assert "renewed" in error.advice


def test_client_certificate(authority: certificates.Authority) -> None:
    trust = {"tls_ca_file": str(authority.file)}
    with (
        fake_phoenix(tls=server_with(authority, asks=True)) as fake,
        delivery(wss(fake), tls_cert_file=str(authority.issue("client")), **trust) as (made, _),
    ):
        made.push(pushes(3))
        assert made.drain(90)
    assert "phoenix.tls_cert_file" in rejection(server_with(authority, asks=True), **trust).advice
    stranger = str(certificates.authority(authority.folder, "strangers").issue("stranger"))
    error = rejection(server_with(authority, asks=True), tls_cert_file=stranger, **trust)
    assert "accept the client certificate of phoenix.tls_cert_file" in str(error)


def test_wrong_scheme(authority: certificates.Authority) -> None:
    assert "wss://" in rejection(server_with(authority), "ws").advice
    assert "ws://" in rejection(None, "wss").advice


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
        assert sorted(owner.confirmed()) == list(range(100))
