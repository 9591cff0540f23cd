"""A viewer that rejoins with its last event id gets the broadcasts that it missed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from infertool.embedded.channel_server import server
from infertool.embedded.channel_server.channels import Recent
from tests.embedded.channel_server.peer import Peer
from tests.embedded.channel_server.running import RunningHub

TOPIC = "public:results"


@pytest.fixture
def hub() -> Iterator[RunningHub]:
    with RunningHub(server.definitions()) as running:
        yield running


@pytest.fixture
def service(hub: RunningHub) -> Iterator[Peer]:
    peer = Peer(hub.port)
    peer.join("service:inference")
    yield peer
    peer.close()


def push(service: Peer, *payloads: dict[str, Any], event: str = "new_result") -> None:
    for payload in payloads:
        service.tell("1", "2", "service:inference", event, payload)
        assert service.hear_reply() == ("ok", {})


def results(*numbers: int) -> list[dict[str, Any]]:
    return [{"event_id": f"e-{number}", "n": number} for number in numbers]


def come_back(hub: RunningHub, params: Any, vsn: str = "2.0.0") -> tuple[tuple[str, object], list[Any]]:
    """Return the join's answer, and what followed up to the next answer."""
    peer = Peer(hub.port, vsn=vsn)
    peer.tell("7", "7", TOPIC, "phx_join", params)
    answer = peer.hear_reply()
    followed: list[Any] = []
    peer.tell(None, "8", "phoenix", "heartbeat", {})
    while (message := peer.hear())[1] != "8":
        assert message[:3] == [None, None, TOPIC]
        followed.append(message[4])
    peer.close()
    return answer, followed


def test_broadcasts_after_the_last_event_follow(hub: RunningHub, service: Peer) -> None:
    push(service, *results(1, 2, 3))
    push(service, {"results": results(4, 5)}, event="new_results")
    push(service, *results(6))
    assert come_back(hub, {"after": "e-2"}) == (
        ("ok", {"missed": 3, "complete": True}),
        [*results(3), {"results": results(4, 5)}, *results(6)],
    )
    assert come_back(hub, {"after": "e-5"}) == (("ok", {"missed": 1, "complete": True}), results(6))
    assert come_back(hub, {"after": "e-6"}) == (("ok", {"missed": 0, "complete": True}), [])


def test_a_rejoin_without_after_gets_nothing(hub: RunningHub, service: Peer) -> None:
    push(service, *results(1, 2))
    for params in ({}, {"after": None}, None, ["after"], {"token": "x"}):
        assert come_back(hub, params) == (("ok", {}), [])


def test_an_event_that_is_not_known_any_more(hub: RunningHub, service: Peer) -> None:
    """As after a restart of the server: every kept broadcast may be new."""
    push(service, *results(1, 2))
    for after in ("of another life", 1, {"a": 1}, [None]):
        assert come_back(hub, {"after": after}) == (("ok", {"missed": 2, "complete": False}), results(1, 2))


def test_an_event_twice_counts_where_it_came_last(hub: RunningHub, service: Peer) -> None:
    push(service, *results(1, 2, 1, 3))
    assert come_back(hub, {"after": "e-1"}) == (("ok", {"missed": 1, "complete": True}), results(3))


def test_topics_are_apart(hub: RunningHub, service: Peer) -> None:
    push(service, *results(1))
    push(service, *results(2), event="inference_failed")
    assert come_back(hub, {"after": "e-2"})[1] == results(1)


def test_events_without_an_id_follow_as_well(hub: RunningHub, service: Peer) -> None:
    push(service, *results(1))
    push(service, {"n": 1}, {"results": ["odd"]}, {"event_id": None})
    answer, followed = come_back(hub, {"after": "e-1"})
    assert answer == ("ok", {"missed": 3, "complete": True})
    assert followed == [{"n": 1}, {"results": ["odd"]}, {"event_id": None}]


def test_what_is_kept_is_bounded() -> None:
    kept = Recent()
    for number in range(5_000):
        kept.note(TOPIC, {"event_id": number}, b"x")
    packets, complete = kept.after(TOPIC, 0)
    assert (len(packets), complete) == (1_000, False)
    for number in range(20):
        kept.note(TOPIC, {"event_id": f"large {number}"}, b"x" * 1_000_000)
    packets, complete = kept.after(TOPIC, "large 15")
    assert (len(packets), complete) == (4, True)
    assert sum(map(len, kept.after(TOPIC, "?")[0])) <= 8_388_608
