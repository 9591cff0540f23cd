"""IPv6 addresses without brackets: each option and setting says so, and what to write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infertool.app import gateway
from infertool.brokers.amqp.management import Management
from infertool.cli.submit.target import target
from infertool.errors import InfertoolError, UsageError
from infertool.ipv6 import bracketed
from infertool.load.http_options import HttpOptions
from infertool.models.loader import open_model
from infertool.secret import Secret
from infertool.settings import GatewaySettings, ModelSettings, Settings
from infertool.settings.broker import BrokerSettings
from infertool.settings.keys import Entry
from infertool.settings.ranges import check
from infertool.text.input import parse_listen_address, parse_stats_url


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("::1:35233", "[::1]:35233"), ("::1", "[::1]"), ("fe80::1:61613", "[fe80::1]:61613"),
        ("::1:80", "[::1]:80"), ("2001:db8::1:443", "[2001:db8::1]:443"), ("2001:db8::1:2", "[2001:db8::1:2]"),
        ("2001:db8:0:0:0:0:0:1:61613", "[2001:db8:0:0:0:0:0:1]:61613"),
        ("fe80::1%eth0:61613", "[fe80::1%eth0]:61613"), ("a:61613", ""), ("127.0.0.1:61613", ""), ("a:b:1", ""),
        ("[::1]:61613", ""), ("", ""), ("user:password", ""),
    ],
)  # fmt: skip
def test_ipv6_addresses_need_brackets(typed: str, meant: str) -> None:
    assert bracketed(typed) == meant


@pytest.mark.parametrize("key", ["broker.url", "phoenix.url", "alerting.webhook_url"])
@pytest.mark.parametrize("url", ["http://::1:4000/y", "http://a:1,::1:4000", "http://user:hidden@::1:4000"])
def test_the_settings_tell_brackets_and_no_password(key: str, url: str) -> None:
    with pytest.raises(Exception, match=r"needs brackets: http://\[::1\]:4000") as caught:
        check({key: Entry(url, "--x")})
    assert "hidden" not in str(caught.value)


def submit(url: str) -> object:
    return target(url)


def loadgen(url: str) -> object:
    return HttpOptions(url=url).target()


def model(url: str) -> object:
    return open_model(ModelSettings(spec=url))


def management(url: str) -> object:
    return Management(BrokerSettings(), url, user="", password=Secret(), vhost="/")


def peer(url: str) -> None:
    gateway.check(Settings(gateway=GatewaySettings(peers={"b": url})))


@pytest.mark.parametrize("use", [submit, loadgen, model, management, peer, parse_stats_url])
@pytest.mark.parametrize("address", ["::1:8080", "user:hidden@::1:8080"])
def test_an_http_url_tells_brackets_and_no_password(use: Callable[[str], object], address: str) -> None:
    with pytest.raises(InfertoolError, match=r"needs brackets; write http://\[::1\]:8080$") as caught:
        use(f"http://{address}/path?token=hidden")
    assert "hidden" not in str(caught.value)


def test_an_address_without_a_scheme() -> None:
    with pytest.raises(UsageError, match=r"needs brackets; write http://\[::1\]:9464$"):
        parse_stats_url("::1:9464")
    with pytest.raises(UsageError, match=r"needs brackets; write \[::1\]:9464$"):
        parse_listen_address("::1:9464")
