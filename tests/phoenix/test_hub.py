"""Delivery and channels against the embedded hub."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest

from infertool.errors import JoinRefusedError
from infertool.net.connection_state import ConnectionState
from infertool.phoenix.delivery import Push
from infertool.phoenix.frames import Frame
from infertool.phoenix.notices import CRASHED
from infertool.phoenix.socket import PhoenixSocket
from infertool.secret import Secret
from infertool.settings.tree import PhoenixSettings
from tests.phoenix.collect import delivery, push_of, pushes
from tests.support.channel import Channel
from tests.support.hub import HubProcess

TOKEN = Secret("the hub's token")


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    with HubProcess(token=TOKEN.reveal()) as running:
        yield running


@pytest.mark.parametrize("mode", ["reply", "echo", "auto", "barrier", "none"])
def test_every_mode(hub: HubProcess, mode: str) -> None:
    with delivery(hub.url, token=TOKEN, confirm=mode) as (made, owner):
        made.push(pushes(1000))
        assert made.drain(90)
        assert sorted(owner.confirmed()) == list(range(1000))


def test_without_token(hub: HubProcess) -> None:
    with pytest.raises(JoinRefusedError, match="service:inference"), delivery(hub.url):
        pass


def test_a_viewer_sees_every_result_once_and_in_order(hub: HubProcess) -> None:
    seen: queue.Queue[Frame] = queue.Queue()
    viewer = PhoenixSocket(PhoenixSettings(url=hub.url))
    viewer.connect()
    Channel(viewer, "public:results", {}, on_message=seen.put).join(10)
    with delivery(hub.url, token=TOKEN) as (made, _):
        made.push(pushes(500))
        assert made.drain(90)
    ids = [seen.get(timeout=90).payload["event_id"] for _ in range(500)]
    viewer.close(2)
    assert ids == [f"e{number}" for number in range(500)]
    assert seen.empty()


def test_restarted_and_killed_mid_run(hub: HubProcess) -> None:
    """Whatever was unconfirmed is pushed again; a viewer may see it twice, the owner hears of each once."""
    with delivery(hub.url, token=TOKEN, window=400) as (made, owner):
        for round_, end in enumerate((hub.stop, hub.kill, hub.stop)):
            made.push([push_of(round_ * 300 + number) for number in range(290)])
            end()
            owner.wait_for(lambda: owner.links[-1].state is not ConnectionState.CONNECTED)
            made.push([push_of(round_ * 300 + number) for number in range(290, 300)])
            hub.start()
        assert made.drain(90)
        assert sorted(owner.confirmed()) == list(range(900))


def test_boom_is_found_among_others(hub: HubProcess) -> None:
    with delivery(hub.url, token=TOKEN) as (made, owner):
        made.push([*pushes(20), Push("boom", ("b",), b"{}", -1), *(push_of(number) for number in range(20, 40))])
        owner.wait_for(lambda: len(owner.results) == 41)
        assert owner.refused() == [(-1, CRASHED)]
        assert sorted(owner.confirmed()) == list(range(40))


def test_flow(hub: HubProcess) -> None:
    operator: PhoenixSocket = PhoenixSocket(PhoenixSettings(url=hub.url, token=TOKEN))
    operator.connect()
    channel = Channel(operator, "service:inference", {}, on_message=lambda _: None)
    channel.join(90)
    with delivery(hub.url, token=TOKEN) as (made, owner):
        assert channel.push("flow", {"state": "pause"}).result(90).status == "ok"
        owner.wait_for(lambda: owner.flows == [True])
        assert channel.push("flow", {"state": "resume"}).result(90).status == "ok"
        made.push(pushes(3))
        assert made.drain(90)
        owner.wait_for(lambda: owner.flows == [True, False])
    operator.close(2)
