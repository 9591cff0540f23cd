"""The official `phoenix` client, in Node, against the hub."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.js.node import NodeProgram
from tests.js.packages import NODE_CLIENT
from tests.support.hub import HubProcess
from tests.support.install import npm

pytestmark = pytest.mark.node
TOKEN = "a service token"


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    with HubProcess(token=TOKEN) as running:
        yield running


@pytest.fixture
def client(hub: HubProcess) -> Iterator[NodeProgram]:
    with NodeProgram("client.mjs", str(npm(NODE_CLIENT)), hub.url, TOKEN) as program:
        yield program


def join(client: NodeProgram, *topics: str) -> None:
    for topic in topics:
        client.send("join", topic=topic)
        client.wait_for("joined", topic=topic)


def test_joins_pushes_and_receives(client: NodeProgram) -> None:
    join(client, "public:results", "service:inference")
    client.send("push", topic="service:inference", event="new_result", payload={"request_id": "r1"})
    event = client.wait_for("event", topic="public:results")
    assert (event["event"], event["payload"]) == ("new_result", {"request_id": "r1"})
    assert client.wait_for("reply", event="new_result")["status"] == "ok"


def test_error_replies_arrive(client: NodeProgram) -> None:
    join(client, "public:results")
    client.send("push", topic="public:results", event="anything", payload={})
    reply = client.wait_for("reply", event="anything")
    assert (reply["status"], reply["response"]) == ("error", {"reason": "read_only"})


def test_binary_payloads_go_both_ways(client: NodeProgram) -> None:
    join(client, "service:inference")
    client.send("push_binary", topic="service:inference", event="echo", bytes=[0, 1, 254, 255])
    assert client.wait_for("reply", event="echo")["response"] == [0, 1, 254, 255]


def test_leaves(client: NodeProgram) -> None:
    join(client, "public:results")
    client.send("leave", topic="public:results")
    client.wait_for("left", topic="public:results")


def test_a_guest_is_refused_the_service_channel(hub: HubProcess) -> None:
    with NodeProgram("client.mjs", str(npm(NODE_CLIENT)), hub.url, "") as guest:
        guest.send("join", topic="service:inference")
        assert guest.wait_for("join_refused")["response"] == {"reason": "unauthorized"}


def test_rejoins_after_a_crash_of_the_channel(client: NodeProgram) -> None:
    join(client, "service:inference")
    client.send("push", topic="service:inference", event="boom", payload={})
    client.wait_for("channel_error", topic="service:inference")
    client.wait_for("joined", topic="service:inference")


@pytest.mark.parametrize(("end", "code"), [("stop", 1012), ("kill", 1006)])
def test_rejoins_after_a_restart_of_the_hub(hub: HubProcess, client: NodeProgram, end: str, code: int) -> None:
    join(client, "service:inference", "public:results")
    getattr(hub, end)()
    assert client.wait_for("close")["code"] == code
    hub.start()
    client.wait_for("joined", topic="service:inference")
    client.wait_for("joined", topic="public:results")
    client.send("push", topic="service:inference", event="new_result", payload={"request_id": "after"})
    assert client.wait_for("event", event="new_result")["payload"] == {"request_id": "after"}
