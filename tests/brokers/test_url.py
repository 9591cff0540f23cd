"""Broker URLs, right and wrong; a wrong one never shows its password."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.registry import parse
from infertool.errors import SettingsError
from infertool.secret import Secret
from infertool.settings.broker import BrokerSettings
from tests.support.brokers import settings


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("stomp://localhost", (("localhost", 61613),)),
        ("stomp+ssl://a:1,b", (("a", 1), ("b", 61612))),
        ("stomp://[::1]:61613,[fe80::1]/", (("::1", 61613), ("fe80::1", 61613))),
        ("stomp://u:p@a:1,b:2", (("a", 1), ("b", 2))),
    ],
)
def test_hosts(url: str, hosts: tuple[tuple[str, int], ...]) -> None:
    assert parse(url).hosts == hosts


@pytest.mark.parametrize(
    ("path", "vhost"), [("", ""), ("/", ""), ("/%2F", ""), ("/prod", "prod"), ("/a%2Fb%20c", "a/b c")]
)
def test_the_virtual_host(path: str, vhost: str) -> None:
    assert parse(f"stomp://u:p@a:1,b{path}").vhost == vhost


@pytest.mark.parametrize(
    ("user_part", "user", "password"),
    [
        ("u:p@", "u", "p"),
        ("u@", "u", ""),
        ("", "", ""),
        ("u%40x:p%3A%2F@", "u@x", "p:/"),
        ("u:a@b,c:1@", "u", "a@b,c:1"),
    ],
)
def test_credentials(user_part: str, user: str, password: str) -> None:
    parsed = parse(f"stomp://{user_part}a:1")
    assert (parsed.user, parsed.password) == (user, Secret(password))


@pytest.mark.parametrize(
    ("url", "words", "nearest"),
    [
        ("stmp://u:hidden@a", "stmp", "stomp"),
        ("stomp://u:hidden@a:1,u:hidden@b:2", "users at several hosts", ""),
        ("amqp://u:hidden@a:5672,other:hidden@b/v", "users at several hosts", ""),
        ("stomp+tls://a", "stomp+tls", "stomp+ssl"),
        ("mqtt://u:hidden@a", "mqtt", ""),
        ("amqp://u:hidden@a:x/vhost", "no valid port", ""),
        ("ampq://u:hidden@a", "ampq", "amqp"),
        ("u:hidden@localhost:61613", "localhost:61613", ""),
        ("stomp://u:hidden@a:0", "no valid port", ""),
        ("stomp://u:hidden@a:99999999999999999999", "no valid port", ""),
        ("stomp://u:hidden@a:x", "no valid port", ""),
        ("stomp://u:hidden@a,,b", "no host:port", ""),
        ("stomp://u:hidden@a:1/b/c", "no virtual host", ""),
        ("stomp://u:hidden@a:1/b?c=d", "no virtual host", ""),
        ("stomp://u:hidden@a:1/b%0Ac", "no virtual host", ""),
        ("memory://a/b", "no meaning", ""),
        ("stomp://", "no host:port", ""),
        ("stomp://u:hidden@::1:61613", "write stomp://[::1]:61613", ""),
        ("stomp://a:b:1", "no host:port", ""),
    ],
)
def test_a_wrong_url_is_named_without_its_password(url: str, words: str, nearest: str) -> None:
    with pytest.raises(SettingsError, match="broker") as caught:
        brokers.open(BrokerSettings(url=url))
    assert words in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert (caught.value.key, caught.value.nearest) == ("broker.url", nearest)


@pytest.mark.parametrize("field", ["tls_ca_file", "tls_cert_file"])
def test_a_tls_file_that_cannot_be_used_is_named(tmp_path: Path, field: str) -> None:
    path = tmp_path / "missing.pem"
    for _ in ("missing", "nonsense"):
        with pytest.raises(SettingsError, match="missing") as caught:
            brokers.open(settings("stomp+ssl://a", **{field: str(path)}))
        assert caught.value.key == f"broker.{field}"
        path.write_text("nonsense")


@pytest.mark.parametrize("changes", [{"user": "a\nb"}, {"user": "a", "password": Secret("b\nreceipt:1")}])
def test_a_login_that_would_become_headers_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="line break"):
        brokers.open(BrokerSettings(**changes))


@pytest.mark.parametrize(
    ("url", "hosts", "vhost"),
    [
        ("amqp://a", (("a", 5672),), ""),
        ("amqp://a/%2F", (("a", 5672),), ""),
        ("amqps://u:p@a,b:1/orders", (("a", 5671), ("b", 1)), "orders"),
        ("amqp://[::1]/a%2Fb%20c", (("::1", 5672),), "a/b c"),
    ],
)
def test_hosts_and_virtual_host_of_an_amqp_url(url: str, hosts: tuple[tuple[str, int], ...], vhost: str) -> None:
    parsed = parse(url)
    assert (parsed.hosts, parsed.vhost) == (hosts, vhost)
