"""The channel server's plain HTTP, and the checks before a socket opens."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from infertool.embedded.channel_server import server
from infertool.embedded.channel_server.channels import Limits
from tests.embedded.channel_server import raw
from tests.embedded.channel_server.peer import Peer
from tests.embedded.channel_server.raw import RawClient, frame, upgrade_request
from tests.embedded.channel_server.running import RunningHub

TOKEN = "sesame"


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    with RunningHub(server.definitions(), TOKEN, Limits(max_frame_bytes=1000)) as running:
        yield running


def ask(hub: RunningHub, request: bytes) -> raw.HttpAnswer:
    client = RawClient(hub.port)
    client.later(request)
    client.flush()
    answer = client.read_http()
    client.close()
    return answer


def get(hub: RunningHub, path: str) -> raw.HttpAnswer:
    return ask(hub, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\n\r\n".encode())


def upgrade(hub: RunningHub, path: str = "/socket/websocket?vsn=2.0.0", **headers: str) -> raw.HttpAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(hub, upgrade_request(path, named, hub.port))


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/?any=query", "text/html; charset=utf-8"),
        ("/dashboard.css", "text/css; charset=utf-8"),
        ("/dashboard.mjs", "text/javascript; charset=utf-8"),
        ("/feed.mjs", "text/javascript; charset=utf-8"),
        ("/filter.mjs", "text/javascript; charset=utf-8"),
        ("/vendor/phoenix.mjs", "text/javascript; charset=utf-8"),
    ],
)
def test_pages_come_with_a_strict_policy(hub: RunningHub, path: str, content_type: str) -> None:
    answer = get(hub, path)
    assert (answer.status, answer.headers["content-type"]) == (200, content_type)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.body


@pytest.mark.parametrize("path", ["/nothing", "/../pyproject.toml", "/vendor/", "/vendor/../../hub/bus.py", "/socket"])
def test_nothing_else_is_served(hub: RunningHub, path: str) -> None:
    assert get(hub, path).status == 404


def test_health_counts_members(hub: RunningHub) -> None:
    peer = Peer(hub.port)
    peer.join("public:results")
    body = json.loads(get(hub, "/health").body)
    assert (body["status"], body["topics"]["public:results"]) == ("ok", 1)
    peer.close()


def test_other_methods_are_refused(hub: RunningHub) -> None:
    assert ask(hub, b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n").status == 405


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://[", "", "http://127.0.0.1.evil.example", "http://evil.example:4000"],
)
def test_pages_of_other_sites_may_not_open_a_socket(hub: RunningHub, origin: str) -> None:
    assert upgrade(hub, Origin=origin).status == 403


def test_a_name_that_an_attacker_points_at_loopback_does_not_help(hub: RunningHub) -> None:
    request = upgrade_request("/socket/websocket?vsn=2.0.0", {"Origin": "http://evil.example"}, hub.port)
    assert ask(hub, request.replace(b"Host: 127.0.0.1", b"Host: evil.example")).status == 403


@pytest.mark.parametrize("origin", ["http://localhost:9999", "http://127.0.0.1", "https://localhost", "http://[::1]:1"])
def test_pages_of_this_machine_may(hub: RunningHub, origin: str) -> None:
    assert upgrade(hub, Origin=origin).status == 101


def test_a_bad_token_is_403_with_an_empty_body(hub: RunningHub) -> None:
    answer = upgrade(hub, "/socket/websocket?vsn=2.0.0&token=wrong")
    assert (answer.status, answer.body) == (403, b"")


@pytest.mark.parametrize("token", [TOKEN, "päss wörd/+=", "???>>>"])
def test_the_token_may_come_in_the_subprotocol(token: str) -> None:
    encoded = base64.b64encode(token.encode()).rstrip(b"=").decode()
    with RunningHub(server.definitions(), token) as hub:
        peer = RawClient(hub.port)
        offered = {"Sec-WebSocket-Protocol": f"phoenix, base64url.bearer.phx.{encoded}"}
        peer.later(upgrade_request("/socket/websocket?vsn=2.0.0", offered, hub.port))
        peer.flush()
        answer = peer.read_http()
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "phoenix")
        peer.send(raw.TEXT, '["1","1","service:inference","phx_join",{}]')
        assert json.loads(peer.read_frame()[1])[4]["status"] == "ok"
        peer.close()


def test_fragments_count_together(hub: RunningHub) -> None:
    peer = Peer(hub.port)
    peer.later(frame(raw.TEXT, b"x" * 600, fin=False) + frame(raw.CONT, b"x" * 600))
    peer.flush()
    assert peer.hear_close() == 1009


def test_what_arrived_before_a_close_is_answered(hub: RunningHub) -> None:
    peer = Peer(hub.port)
    peer.later(frame(raw.TEXT, b'[null,"1","phoenix","heartbeat",{}]') + frame(raw.CLOSE))
    peer.flush()
    assert peer.hear()[1] == "1"
    assert peer.hear_close() == 1000


@pytest.mark.parametrize("garbage", [b"\0" * 100 + b"\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"GET\r\n\r\n"])
def test_what_is_not_http_ends_the_connection(hub: RunningHub, garbage: bytes) -> None:
    client = RawClient(hub.port)
    client.later(garbage)
    client.flush()
    with pytest.raises(EOFError):
        client.read_frame()
    client.close()
