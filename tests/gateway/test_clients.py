"""Addresses of clients behind proxies, and names in certificates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.errors import SettingsError
from infertool.gateway.clients import TrustedProxies, certificate_name, client_address, client_of

PROXIES = TrustedProxies(["10.0.0.0/8", "127.0.0.1", "2001:db8:ffff::/48", "::1"])


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # not a proxy of ours: what it says does not count
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 127.0.0.1, 198.51.100.1", "198.51.100.1"),  # forged in front
        ("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.0.0.2,10.0.0.3", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),  # all are proxies
        ("10.0.0.1", "198.51.100.1, garbage", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, garbage, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "garbage, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1,", "10.0.0.1"),
        ("10.0.0.1", ",,,", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("10.0.0.1", "[2001:db8::7]", "2001:db8::7"),
        ("10.0.0.1", "2001:DB8:0::7", "2001:db8::7"),
        ("10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, ::ffff:10.0.0.2", "198.51.100.1"),  # a proxy, however it is written
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::1", "198.51.100.1", "198.51.100.1"),
        ("2001:db8:ffff::1", "fe80::1%eth0", "2001:db8:ffff::1"),
        ("fe80::1%eth0", "", "fe80::1"),
        ("10.0.0.1", "198.51.100.01", "10.0.0.1"),
        ("10.0.0.1", "3325256705", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1\x00", "10.0.0.1"),
        ("10.0.0.1", "١٩٨.51.100.1", "10.0.0.1"),
        ("", "198.51.100.1", ""),  # a UNIX socket
    ],
)
def test_the_address_of_a_client(peer: str, forwarded_for: str, client: str) -> None:
    assert client_address(peer, forwarded_for, PROXIES) == client


def test_nothing_is_believed_where_no_proxy_is_trusted() -> None:
    assert client_address("127.0.0.1", "198.51.100.1", TrustedProxies([])) == "127.0.0.1"


@given(st.text(max_size=200), st.ip_addresses(v=4).filter(lambda address: str(address)[:3] not in {"10.", "127"}))
def test_what_a_client_writes_itself_never_counts(written: str, real: object) -> None:
    assert client_address("10.0.0.1", f"{written},{real}", PROXIES) == str(real)


@given(st.text())
def test_no_text_makes_it_fail(written: str) -> None:
    assert client_address("10.0.0.1", written, PROXIES)
    assert client_of(written).startswith("address:")


def test_a_header_of_any_length_is_read_from_its_end_only() -> None:
    assert client_address("10.0.0.1", "1.1.1.1," + "10.0.0.2," * 100_000 + "10.0.0.3", PROXIES) == "10.0.0.2"


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("198.51.100.1", "address:198.51.100.1"),
        ("2001:db8:1:2:3:4:5:6", "address:2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "address:2001:db8:1:2::/64"),
        ("::ffff:198.51.100.1", "address:198.51.100.1"),
        ("", "address:"),
    ],
)
def test_the_client_that_an_address_stands_for(address: str, client: str) -> None:
    assert client_of(address) == client


@pytest.mark.parametrize("written", ["", "proxy.example.com", "10.0.0.0/33", "10.0.0", "*"])
def test_what_is_no_address_of_a_proxy_is_refused(written: str) -> None:
    with pytest.raises(SettingsError, match="trusted_proxies"):
        TrustedProxies([written])


@pytest.mark.parametrize("written", ["10.0.0.7/8", "::ffff:10.0.0.0/104"])
def test_networks_may_be_written_loosely(written: str) -> None:
    assert client_address("10.200.0.1", "198.51.100.1", TrustedProxies([written])) == "198.51.100.1"


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (None, ""),
        ({}, ""),
        ({"subject": ((("organizationName", "X"),), (("commonName", "billing"),))}, "billing"),
        ({"subject": (), "subjectAltName": (("DNS", "d"), ("URI", "spiffe://x/y"))}, "spiffe://x/y"),
        ({"subjectAltName": (("IP Address", "10.0.0.1"), ("DNS", "d"))}, "d"),
        ({"subject": ((("commonName", "a"),),), "notAfter": "Jan  1 00:00:00 2222 GMT"}, "a"),
        ({"subject": ((("commonName", "a"),),), "notAfter": "Jan  1 00:00:00 2022 GMT"}, ""),
        ({"subject": ((("commonName", "a\x00b"),),)}, ""),
        ({"subject": ((("commonName", "a" * 300),),)}, ""),
    ],
)
def test_the_name_in_a_certificate(certificate: dict[str, object] | None, name: str) -> None:
    assert certificate_name(certificate) == name
