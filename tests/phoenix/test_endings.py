"""Channels and connections that end over what is pushed: the guilty is found, the others flow, the server is blamed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from infertool.net.timing import PUBLISHER, Schedule
from infertool.phoenix import delivery as delivery_module
from infertool.phoenix import membership, suspects
from infertool.phoenix.frames import Frame
from infertool.phoenix.pending_pushes import Push
from tests.phoenix.collect import delivery, push_of, pushes
from tests.support.phoenix_fake import OnFrame, Peer, fake_phoenix, is_push, polite

WINDOW = 32
SOON = Schedule((0.05,))


@pytest.fixture(autouse=True)
def rejoin_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "REJOIN", SOON)
    monkeypatch.setattr(suspects, "NOTHING_PASSES", SOON)
    monkeypatch.setattr(suspects, "OTHERS_PASS", SOON)
    monkeypatch.setattr(delivery_module, "PUBLISHER", replace(PUBLISHER, schedule=SOON))


class Fragile:
    """Ends over the pushes that `ends` names; then what is queued behind is lost, as in a dead channel's mailbox."""

    def __init__(self, ends: Callable[[Frame], bool], end: OnFrame = Peer.crash) -> None:
        self.ends = ends
        self.end = end
        self.ended: Counter[str] = Counter()
        self.dead: set[object] = set()

    def __call__(self, peer: Peer, frame: Frame) -> None:
        if not is_push(frame):
            polite(peer, frame)
        elif (peer.number, frame.join_ref) in self.dead:
            return
        elif self.ends(frame):
            self.ended[frame.payload["event_id"]] += 1
            self.dead.add((peer.number, frame.join_ref))
            self.end(peer, frame)
        else:
            polite(peer, frame)


def over(*event_ids: str) -> Callable[[Frame], bool]:
    return lambda frame: frame.payload["event_id"] in event_ids


def close_with(code: int) -> OnFrame:
    return lambda peer, _: peer.ws.close(code)


@pytest.mark.parametrize(
    "end", [Peer.crash, Peer.close_channel, close_with(1007), close_with(1011)], ids=["crash", "close", "1007", "1011"]
)
def test_three_guilty_pushes_are_found_and_the_others_flow(end: OnFrame) -> None:
    channel = Fragile(over("e3", "e40", "e41"), end)
    with fake_phoenix(channel) as fake, delivery(fake.url, window=WINDOW) as (made, owner):
        made.push(pushes(120))
        owner.wait_for(lambda: len(owner.results) == 120)
        assert sorted(number for number, _ in owner.refused()) == [3, 40, 41]
        assert sorted(owner.confirmed()) == [number for number in range(120) if number not in {3, 40, 41}]
        assert max(channel.ended.values()) <= 3
        assert all(result.crashes >= 2 for result in owner.results if not result.confirmed_by)
        for event_id in ("e3", "e40", "e41"):
            assert "service:inference" in owner.wait_for_warning(f"new_result {event_id} ends it")


def test_others_are_not_pushed_one_at_a_time_meanwhile() -> None:
    """Between the ends, what was pushed later goes out as ever."""
    channel = Fragile(over("e0"))
    with fake_phoenix(channel) as fake, delivery(fake.url, window=WINDOW) as (made, owner):
        made.push(pushes(1))
        made.push([push_of(number) for number in range(1, 200)])
        owner.wait_for(lambda: len(owner.results) == 200)
        assert channel.ended["e0"] <= 3
        assert [number for number, _ in owner.refused()] == [0]


def test_a_message_larger_than_the_server_takes() -> None:
    limit = 2000
    large = Push("new_result", ("large",), b'{"event_id":"large","x":"%b"}' % (b"x" * limit), -1)
    channel = Fragile(lambda frame: len(str(frame.payload)) > limit, close_with(1009))
    with fake_phoenix(channel) as fake, delivery(fake.url, window=WINDOW) as (made, owner):
        made.push([*pushes(10), large, *(push_of(number) for number in range(10, 60))])
        owner.wait_for(lambda: len(owner.results) == 61)
        [(context, reason)] = owner.refused()
        assert context == -1
        assert channel.ended["large"] <= 3
        for text in (str(reason), owner.wait_for_warning("larger than it takes")):
            assert "publish.max_bytes" in text
            assert "max_frame_size" in text


class Away:
    """A server whose channel ends over everything until it is `back`."""

    def __init__(self) -> None:
        self.back = False
        self.channel = Fragile(lambda _: not self.back)

    def __call__(self, peer: Peer, frame: Frame) -> None:
        self.channel(peer, frame)


@pytest.mark.parametrize("count", [2, 5, 60])
@pytest.mark.parametrize("before", [0, 10])
def test_a_server_that_is_away_costs_no_event(count: int, before: int) -> None:
    server = Away()
    server.back = True
    with fake_phoenix(server) as fake, delivery(fake.url, window=WINDOW) as (made, owner):
        made.push([push_of(1000 + number) for number in range(before)])
        assert made.drain(90)
        server.back = False
        made.push(pushes(min(count, WINDOW)))
        owner.wait_for(lambda: sum(server.channel.ended.values()) >= 8)
        assert not owner.refused()
        server.back = True
        made.push([push_of(number) for number in range(WINDOW, count)])
        owner.wait_for(lambda: len(owner.results) == count + before)
        assert not owner.refused()
        assert "new_result e" in owner.wait_for_warning("the server seems at fault")


def test_one_push_alone_waits_until_others_pass() -> None:
    channel = Fragile(over("e0"))
    with fake_phoenix(channel) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(1))
        owner.wait_for(lambda: channel.ended["e0"] >= 4)
        assert not owner.results
        made.push([push_of(1)])
        owner.wait_for(lambda: len(owner.results) == 2)
        assert owner.refused() == [(0, "channel crashed")]


def alert(number: int) -> Push[int]:
    payload = b'{"event_id":"a%d","original_payload":{}}' % number
    return Push("inference_failed", (f"a{number}",), payload, -number, b'{"event_id":"a%d"}' % number)


def test_an_event_without_a_clause_waits_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "OTHERS_PASS", Schedule((600.0,)))
    channel = Fragile(lambda frame: frame.event == "inference_failed")
    with fake_phoenix(channel) as fake, delivery(fake.url, window=WINDOW) as (made, owner):
        made.push([alert(number) if number % 10 == 9 else push_of(number) for number in range(400)])
        owner.wait_for(lambda: len(owner.confirmed()) == 360)
        assert not owner.refused()
        assert sum(channel.ended.values()) <= 6
        # They are not waited for at a stop, and go out once there is another server.
        assert made.drain(90)
        assert made.outstanding() == 40
        channel.ends = lambda _: False
        fake.peers[-1].drop()
        owner.wait_for(lambda: len(owner.results) == 400)
        told = owner.wait_for_warning("does the channel have a clause for it")
    assert "inference_failed a" in told
    assert "service:inference" in told


def test_an_alert_over_which_the_channel_ends_goes_without_its_payload() -> None:
    channel = Fragile(lambda frame: "original_payload" in frame.payload)
    with fake_phoenix(channel) as fake, delivery(fake.url, window=WINDOW) as (made, owner):
        made.push([*pushes(5), alert(7), *(push_of(number) for number in range(5, 50))])
        owner.wait_for(lambda: len(owner.results) == 51)
        assert not owner.refused()
        assert channel.ended == {"a7": 2}


@pytest.mark.parametrize("loss", [Peer.drop, lambda peer: peer.ws.close(1012)])
def test_a_lost_connection_accuses_nobody(loss: Any) -> None:
    def lose(peer: Peer, frame: Frame) -> None:
        if is_push(frame) and frame.payload["event_id"] == "e3" and peer.number < 4:
            loss(peer)
        else:
            polite(peer, frame)

    with fake_phoenix(lose) as fake, delivery(fake.url) as (made, owner):
        made.push(pushes(10))
        owner.wait_for(lambda: len(owner.results) == 10)
        assert not owner.refused()
        assert not owner.warnings
