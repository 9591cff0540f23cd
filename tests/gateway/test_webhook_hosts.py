"""Where webhooks may go: forms of URLs, and addresses that are not of the Internet."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.errors import SettingsError
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.webhook_hosts import WebhookHosts, is_public

HOSTS = WebhookHosts(
    [
        "hooks.example.com",
        "*.example.org",
        "odd.example.com:8443",
        "10.0.0.5",
        "[::1]:9000",
        "127.0.0.1",
        "localhost:81",
    ]
)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://hooks.example.com", ("https", "hooks.example.com", 443, "/")),
        ("HTTPS://Hooks.Example.COM:443/a?b=c", ("https", "hooks.example.com", 443, "/a?b=c")),
        ("https://hooks.example.com?b=c", ("https", "hooks.example.com", 443, "/?b=c")),
        ("https://a.b.example.org/%2e%2e/x", ("https", "a.b.example.org", 443, "/%2e%2e/x")),
        ("https://xn--mnchen-3ya.example.org/", ("https", "xn--mnchen-3ya.example.org", 443, "/")),
        ("https://odd.example.com:8443/", ("https", "odd.example.com", 8443, "/")),
        ("https://10.0.0.5/", ("https", "10.0.0.5", 443, "/")),
        ("http://[0:0:0:0:0:0:0:1]:9000/", ("http", "::1", 9000, "/")),
        ("http://127.0.0.1/", ("http", "127.0.0.1", 80, "/")),
        ("http://localhost:81/", ("http", "localhost", 81, "/")),
    ],
)
def test_what_is_allowed(url: str, target: tuple[str, str, int, str]) -> None:
    found = HOSTS.check(url)
    assert (found.scheme, found.host, found.port, found.path) == target
    assert "@" not in found.authority


@pytest.mark.parametrize(
    "url",
    [
        "", "hooks.example.com", "//hooks.example.com/", "ftp://hooks.example.com/", "file:///etc/passwd", "https:///",
        "http://hooks.example.com/", "https://hooks.example.com:8443/", "https://odd.example.com/",
        "https://hooks.example.com:0/", "https://hooks.example.com:99999/", "https://hooks.example.com:/",
        "https://user@hooks.example.com/", "https://hooks.example.com@evil.com/", "https://evil.com#@hooks.example.com/",
        "https://evil.com\\@hooks.example.com/", "https://hooks.example.com\\.evil.com/", "https://hooks.example.com/#a",
        "https://hooks.example.com\t.evil.com/", "https://hooks.example.com/\r\nX: y", "https://hooks.example.com /",
        "https://example.org/", "https://badexample.org/", "https://hooks.example.com.evil.com/",
        "https://hooks.example.com./", "https://hooks%2eexample.com/", "https://.example.org/", "https://a..example.org/",
        "https://-a.example.org/", "https://a_b.example.org/", "https://münchen.example.org/", "https://hooks。example.com/",
        "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/", "http://127.0.0.01/",
        "http://127.0.0.1.:80/", "http://127.0.0.2/", "http://0/", "http://0.0.0.0/", "http://10.0.0.5/",
        "http://[::]:9000/", "http://[::ffff:127.0.0.1]:9000/", "http://[::127.0.0.1]:9000/", "http://[64:ff9b::7f00:1]:9000/",
        "http://[::1%25lo]:9000/", "http://[::1]/", "http://::1:9000/", "http://[127.0.0.1]/", "http://localhost/",
        "http://localhost.:81/", "http://sub.localhost:81/", "https://hooks.example.com/" + "a" * 2048,
    ],
)  # fmt: skip
def test_what_is_refused(url: str) -> None:
    with pytest.raises(Problem) as caught:
        HOSTS.check(url)
    assert caught.value.reason is Reason.WEBHOOK_REFUSED
    assert not url or len(url) < 3 or url not in caught.value.detail


@pytest.mark.parametrize("url", ["https://2606:4700::1111/in", "https://2606:4700::1111:8443"])
def test_an_ipv6_address_without_brackets_is_told(url: str) -> None:
    with pytest.raises(Problem, match="an IPv6 address needs brackets"):
        WebhookHosts(["2606:4700::1111"]).check(url)


def test_without_a_list_there_are_no_webhooks() -> None:
    with pytest.raises(Problem, match="off"):
        WebhookHosts([]).check("https://hooks.example.com/")


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.com", "*.10.0.0.1", "a b", "https://a.b", "a.b/", "a.b:0", "a.b:70000", "127.1", "0x7f.0.0.1", "ü.de"],
)
def test_entries_that_are_no_hosts(entry: str) -> None:
    with pytest.raises(SettingsError) as caught:
        WebhookHosts([entry])
    assert caught.value.key == "gateway.webhook_hosts"


SPECIAL = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.255", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8",
    "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::",
    "2002:808:808::", "3fff::1", "5f00::1", "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1",
]  # fmt: skip


def test_special_addresses_are_not_public() -> None:
    assert [each for each in SPECIAL if is_public(ip_address(each))] == []
    assert all(
        is_public(ip_address(each)) for each in ("8.8.8.8", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1")
    )


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_no_address_is_public_that_python_knows_as_special(address: IPv4Address | IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_loopback, address.is_link_local))


def test_resolved_addresses_must_be_public_or_listed() -> None:
    def usable(url: str, *addresses: str) -> list[str]:
        return HOSTS.usable(HOSTS.check(url), addresses)

    assert usable("https://hooks.example.com/", *SPECIAL, "fe80::1%eth0") == []
    assert usable("https://hooks.example.com/", "10.0.0.5", "8.8.8.8") == ["8.8.8.8"]
    assert usable("https://10.0.0.5/", "10.0.0.5") == ["10.0.0.5"]
    assert usable("https://10.0.0.5/", "10.0.0.6") == []
    assert usable("http://localhost:81/", "10.0.0.5", "::1", "127.0.0.1") == ["::1", "127.0.0.1"]
