"""The Elixir application in fixtures/ and the embedded channel server have the same events and topics."""

from __future__ import annotations

import re

from infertool.embedded.channel_server import server
from infertool.embedded.channel_server.channels import Limits
from infertool.settings import PhoenixSettings
from tests.conftest import FIXTURES
from tests.support.present import present

WEB = FIXTURES / "phoenix_app" / "lib" / "inference_bus_web"
CHANNEL = (WEB / "channels" / "inference_channel.ex").read_text()


def test_both_servers_broadcast_the_same() -> None:
    block = present(re.search(r"@public_topics %\{(.*?)\}", CHANNEL, re.DOTALL))[1]
    assert dict(re.findall(r'"(\w+)" => "([\w:]+)"', block)) == dict(server.REBROADCAST)


def test_topics_and_path_are_infertools_defaults() -> None:
    socket = (WEB / "channels" / "bus_socket.ex").read_text()
    settings = PhoenixSettings()
    assert re.findall(r'channel "([^"]+)"', socket) == [settings.topic, "public:*"]
    path = present(re.search(r'socket "([^"]+)"', (WEB / "endpoint.ex").read_text()))[1]
    assert settings.url.endswith(f"{path}/websocket")


def test_the_page_joins_the_topics_of_the_broadcasts() -> None:
    javascript = (FIXTURES / "phoenix_app" / "assets" / "js" / "bus.js").read_text()
    assert set(re.findall(r'\.on\("(\w+)"', javascript)) == set(server.REBROADCAST)


def test_the_overload_limits_are_those_of_the_channel_server() -> None:
    overload = (FIXTURES / "phoenix_app" / "lib" / "inference_bus" / "overload.ex").read_text()
    marks = re.search(r"@defaults \[viewer: ([\d_]+), all: ([\d_]+)", overload)
    assert tuple(map(int, present(marks).groups())) == (Limits().viewer_messages, Limits().all_messages)


def test_every_environment_variable_is_in_its_readme() -> None:
    read = re.findall(r'System.get_env\("(\w+)"', (FIXTURES / "phoenix_app" / "config" / "runtime.exs").read_text())
    readme = (FIXTURES / "phoenix_app" / "README.md").read_text()
    assert [name for name in read if name not in readme] == []
