"""Channels that confirm nothing: warnings repeat, and pushes are not, so that the mailbox does not fill."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import pytest

from infertool.phoenix import notices
from infertool.phoenix.frames import Frame
from infertool.phoenix.notices import Silence
from infertool.phoenix.push import Entry
from infertool.settings.tree import PhoenixSettings
from tests.phoenix.collect import delivery, push_of, pushes
from tests.phoenix.test_batches import batch_of
from tests.support.phoenix_fake import Peer, fake_phoenix, is_push, polite


def heartbeats_only(peer: Peer, frame: Frame) -> None:
    """`handle_in(_, _, socket) -> {:noreply, socket}`."""
    if not is_push(frame):
        polite(peer, frame)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("reply", ["phoenix.confirm = reply", "echo", "barrier", ":reply"]),
        ("echo", ["phoenix.confirm = echo", "public:results", "public:alerts", "phoenix.result_topic", "reply"]),
    ],
)
def test_a_channel_that_confirms_nothing_is_warned_of_until_it_does(mode: str, words: list[str]) -> None:
    with fake_phoenix(heartbeats_only) as fake, delivery(fake.url, confirm=mode, push_timeout_s=0.5) as (made, owner):
        made.push(pushes(20))
        owner.wait_for(lambda: len(owner.warnings) >= 3)
        assert len(fake.pushed()) == 20, "pushed again under the same join"
    for word in (*words, "service:inference", "20 pushes", "new_result e0"):
        assert word in owner.warnings[0]


class Blockade:
    """A channel process that is suspended: its mailbox keeps everything, and it answers all when it goes on."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.mailbox: list[tuple[Peer, Frame]] = []
        self.open = True

    def __call__(self, peer: Peer, frame: Frame) -> None:
        with self.lock:
            if self.open or not is_push(frame):
                polite(peer, frame)
            else:
                self.mailbox.append((peer, frame))

    def go_on(self) -> None:
        with self.lock:
            self.open = True
            for peer, frame in self.mailbox:
                polite(peer, frame)


@pytest.mark.parametrize("before", [0, 5])
def test_a_blocked_channel_gets_each_push_once(before: int) -> None:
    channel = Blockade()
    with fake_phoenix(channel) as fake, delivery(fake.url, push_timeout_s=0.2) as (made, owner):
        made.push([push_of(1000 + number) for number in range(before)])
        assert made.drain(90)
        channel.open = False
        made.push(pushes(50))
        owner.wait_for(lambda: sum("for 50 pushes" in text for text in owner.warnings) >= 3)
        assert len(channel.mailbox) == 50
        assert ("earlier" in owner.warnings[-1]) is bool(before)
        channel.go_on()
        assert made.drain(90)
        assert len(owner.confirmed()) == 50 + before
        owner.wait_for_warning("confirms pushes again")
        assert len(fake.pushed()) == 50 + before


def test_a_batch_waits_for_a_blocked_channel_that_is_known_to_take_batches() -> None:
    channel = Blockade()
    with fake_phoenix(channel) as fake, delivery(fake.url, push_timeout_s=3.0) as (made, owner):
        made.push([batch_of(0, 1)])
        assert made.drain(90)
        channel.open = False
        made.push([batch_of(2, 3)])
        owner.wait_for(lambda: sum("new_results e2" in text for text in owner.warnings) >= 2)
        channel.go_on()
        assert made.drain(90)
        assert not owner.refused()
        assert len(fake.pushed()) == 2


def test_what_the_channel_left_out_is_repeated_ever_more_seldom() -> None:
    """It answers whatever comes behind, so the push that it ignores is lost, or its task is."""
    numbers = iter(range(1, 10_000))

    def leaves_out(peer: Peer, frame: Frame) -> None:
        if not (is_push(frame) and frame.payload["event_id"] == "e0"):
            polite(peer, frame)

    with fake_phoenix(leaves_out) as fake, delivery(fake.url, push_timeout_s=0.3) as (made, owner):
        made.push(pushes(1))
        while len([payload for payload in fake.pushed() if payload["event_id"] == "e0"]) < 4:
            made.push([push_of(next(numbers))])
            owner.wait_for(lambda: made.outstanding() <= 1)
        first = next(frame for frame in fake.frames if is_push(frame))
        assert {frame.ref for frame in fake.frames if frame.payload == first.payload} == {first.ref}


def look(watch: Silence, now: float, sent: list[Entry[int]]) -> str | None:
    return watch.look(sent, now, confirmed_before=False)


def entry(sent_at: float) -> Entry[int]:
    return Entry(push_of(1), 1, sent_at=sent_at)


def test_warnings_come_after_the_timeout_then_at_twice_the_distance() -> None:
    watch = Silence(PhoenixSettings(push_timeout_s=10.0))
    told = [now for now in range(4000) if look(watch, float(now), [entry(0.0)])]
    assert told[:6] == [10, 20, 40, 80, 160, 320]
    assert {later - earlier for earlier, later in pairwise(told[7:])} == {int(notices._LONGEST_PAUSE_S)}


def test_a_channel_that_is_always_a_little_late_is_no_flood() -> None:
    watch = Silence(PhoenixSettings(push_timeout_s=10.0))
    told: list[Any] = [look(watch, float(now), [entry(now - 9.5 - now % 2)]) for now in range(20, 1000)]
    assert 3 <= len([text for text in told if text]) <= 20


def test_nothing_is_said_while_all_is_well() -> None:
    watch = Silence(PhoenixSettings(push_timeout_s=10.0))
    assert not any(look(watch, float(now), [entry(now - 5.0)] if now % 3 else []) for now in range(500))


@pytest.mark.parametrize("mode", ["auto", "reply", "echo", "barrier", "none"])
def test_every_mode_names_itself_the_topic_and_the_push(mode: Any) -> None:
    watch = Silence(PhoenixSettings(confirm=mode, topic="service:x"))
    for confirmed_before in (False, True):
        text = watch._what(entry(0.0), 3, 12.0) + watch._advice(entry(0.0), confirmed_before=confirmed_before)
        assert all(word in text for word in (f"phoenix.confirm = {mode}", "service:x", "new_result e1", "12 s"))


@pytest.mark.parametrize("mode", ["auto", "reply", "echo", "barrier", "none"])
def test_a_batch_without_an_answer_says_nothing_of_heartbeats(mode: Any) -> None:
    """Heartbeats are answered; they do not count for a batch on trial."""
    batch = Entry(batch_of(1, 2), 0)
    told = Silence(PhoenixSettings(confirm=mode)).look([batch], 1000.0, confirmed_before=False)
    assert told
    assert "is pushed alone" in told
    assert "heartbeat" not in told
