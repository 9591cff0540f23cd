"""The channels of `infertool dev`, in the real process."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.embedded.channel_server import raw
from tests.embedded.channel_server.peer import Peer
from tests.support.hub import HubProcess

TOKEN = "sesame"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    with HubProcess(token=TOKEN) as running:
        yield running


@pytest.fixture
def service(hub: HubProcess) -> Iterator[Peer]:
    peer = Peer(hub.port, token=TOKEN)
    peer.join("service:inference")
    yield peer
    peer.close()


@pytest.fixture
def viewer(hub: HubProcess) -> Iterator[Peer]:
    peer = Peer(hub.port)
    peer.join("public:results", "1")
    peer.join("public:alerts", "2")
    yield peer
    peer.close()


@pytest.mark.parametrize(
    ("event", "topic"),
    [
        ("new_result", "public:results"),
        ("new_results", "public:results"),
        ("inference_failed", "public:alerts"),
        ("alert", "public:alerts"),
    ],
)
def test_pushes_are_broadcast_unchanged_and_answered(service: Peer, viewer: Peer, event: str, topic: str) -> None:
    payload = {"results": [{"n": 1}, {"n": 2}]}
    service.tell("1", "2", "service:inference", event, payload)
    assert service.hear() == ["1", "2", "service:inference", "phx_reply", {"status": "ok", "response": {}}]
    assert viewer.hear() == [None, None, topic, event, payload]


def test_the_service_channel_announces_batches(service: Peer) -> None:
    assert service.join("service:inference", "4") == {"accepts": ["new_results"]}


def test_any_other_event_is_answered(service: Peer) -> None:
    service.tell("1", "2", "service:inference", "whatever", {})
    assert service.hear_reply() == ("ok", {})


def test_a_socket_sees_its_own_broadcast_before_the_reply(service: Peer) -> None:
    service.join("public:results", "2")
    service.tell("1", "3", "service:inference", "new_result", {"n": 1})
    assert [service.hear()[3], service.hear()[3]] == ["new_result", "phx_reply"]


def test_flow_reaches_every_member_of_the_service_topic(hub: HubProcess, service: Peer) -> None:
    other = Peer(hub.port, token=TOKEN)
    other.join("service:inference", "7")
    other.tell("7", "8", "service:inference", "flow", {"state": "pause"})
    assert service.hear() == [None, None, "service:inference", "flow", {"state": "pause"}]
    other.close()


def test_echo_boom_and_stop(service: Peer) -> None:
    service.tell("1", "2", "service:inference", "echo", {"a": [1]})
    assert service.hear_reply() == ("ok", {"a": [1]})
    service.tell("1", "3", "service:inference", "boom", {})
    assert service.hear() == ["1", "1", "service:inference", "phx_error", {"reason": "channel_crash"}]
    service.join("service:inference", "4")
    service.tell("4", "5", "service:inference", "stop", {})
    assert service.hear() == ["4", "4", "service:inference", "phx_close", {}]


def test_listening_topics_refuse_pushes(viewer: Peer) -> None:
    viewer.tell("1", "3", "public:results", "new_result", {})
    assert viewer.hear_reply() == ("error", {"reason": "read_only"})


def test_a_socket_without_token_may_not_join_the_service_topic(viewer: Peer) -> None:
    viewer.tell("3", "3", "service:inference", "phx_join", {})
    assert viewer.hear_reply() == ("error", {"reason": "unauthorized"})


def test_without_a_token_anyone_may_join_with_any() -> None:
    with HubProcess() as hub:
        for peer in (Peer(hub.port), Peer(hub.port, token="anything")):
            peer.join("service:inference")
            peer.close()


@pytest.mark.parametrize("payload", [None, [1], "text", 7])
def test_a_payload_that_cannot_be_broadcast_crashes_the_pushers_channel(
    service: Peer, viewer: Peer, payload: list[int] | str | int | None
) -> None:
    service.tell("1", "2", "service:inference", "new_result", payload)
    assert service.hear()[3] == "phx_error"
    service.join("service:inference", "3")
    service.tell("3", "4", "service:inference", "new_result", {"n": 1})
    assert viewer.hear()[4] == {"n": 1}


def test_a_deeply_nested_payload_is_broadcast(service: Peer, viewer: Peer) -> None:
    deep = "[" * 1000 + "]" * 1000
    service.send(raw.TEXT, f'["1","2","service:inference","new_result",{{"deep":{deep}}}]')
    assert service.hear_reply() == ("ok", {})
    _, data = viewer.read_frame()
    assert f'{{"deep":{deep}}}' in data.decode().replace(" ", "")


def test_the_101st_join_is_refused(hub: HubProcess) -> None:
    peer = Peer(hub.port)
    for number in range(100):
        peer.join(f"public:{number}", str(number))
    peer.tell("x", "x", "public:x", "phx_join", {})
    assert peer.hear() == [
        "x", "x", "public:x", "phx_reply",
        {"status": "error", "response": {"reason": "too many channels joined"}},
    ]  # fmt: skip
    peer.join("public:0", "again")
    assert peer.hear()[3] == "phx_close"
    peer.close()


def test_a_push_of_an_earlier_join_is_dropped(service: Peer) -> None:
    service.tell("0", "2", "service:inference", "echo", {"dropped": True})
    service.tell("1", "3", "service:inference", "echo", {})
    assert service.hear()[1] == "3"


def test_vsn_1_and_2_share_a_topic(hub: HubProcess, service: Peer) -> None:
    old = Peer(hub.port, vsn="1.0.0")
    old.send(raw.TEXT, json.dumps({"topic": "public:results", "event": "phx_join", "payload": {}, "ref": "1"}))
    old.hear()
    service.tell("1", "2", "service:inference", "new_result", {"n": 1})
    assert old.hear() == {"topic": "public:results", "event": "new_result", "payload": {"n": 1}, "ref": None}
    old.close()


def test_members_are_forgotten_with_their_socket(hub: HubProcess, service: Peer) -> None:
    gone = Peer(hub.port)
    gone.join("public:results")
    gone.close()
    for ref in range(5):
        service.tell("1", str(ref), "service:inference", "new_result", {})
        assert service.hear_reply() == ("ok", {})
