"""The Phoenix publisher: confirmations, rejections, batches that are taken apart, and the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from infertool.net.timing import Schedule
from infertool.phoenix import membership
from infertool.phoenix.frames import Frame
from infertool.phoenix.push import Push, PushResult
from infertool.publishers.phoenix import PhoenixPublisher
from infertool.publishers.port import Confirmation, Publication, PublisherClosedError, Rejection
from infertool.settings.tree import PhoenixSettings, PublishSettings
from infertool.telemetry.signals import ConnectionChanged, Flow, Signal, Warned
from tests.support.phoenix_fake import FakePhoenix, Peer, fake_phoenix, is_push, polite


def results(*numbers: int) -> list[Publication[int]]:
    return [Publication("new_result", f"e{n}", b'{"event_id":"e%d"}' % n, n) for n in numbers]


class Owner:
    """Keeps what the publisher reports."""

    def __init__(self) -> None:
        self.settled: list[Confirmation[int] | Rejection[int]] = []
        self.signals: list[Signal] = []
        self.changed = threading.Condition()

    def take(self, confirmations: Sequence[Confirmation[int]], rejections: Sequence[Rejection[int]]) -> None:
        with self.changed:
            self.settled += [*confirmations, *rejections]
            self.changed.notify_all()

    def observe(self, signal: Signal) -> None:
        with self.changed:
            self.signals.append(signal)
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 90)

    def confirmed(self) -> list[int]:
        return sorted(each.publication.context for each in self.settled if isinstance(each, Confirmation))

    def rejected(self) -> dict[int, str]:
        return {each.publication.context: each.reason for each in self.settled if isinstance(each, Rejection)}


@contextmanager
def publisher(fake: FakePhoenix, batch: int = 1) -> Iterator[tuple[PhoenixPublisher[int], Owner]]:
    owner = Owner()
    settings = PhoenixSettings(url=fake.url, confirm="reply", connect_timeout_s=60.0)
    made: PhoenixPublisher[int] = PhoenixPublisher(settings, PublishSettings(batch=batch), owner.observe)
    made.report_to(owner.take)
    made.start()
    try:
        yield made, owner
    finally:
        made.close(2)


def refusing(*bad: str) -> Callable[[Peer, Frame], None]:
    """Refuse pushes that hold one of these ids."""

    def answer(peer: Peer, frame: Frame) -> None:
        if is_push(frame) and any(f'"{name}"'.encode() in frame.text for name in bad):
            peer.reply(frame, "error", {"reason": "bad"})
        else:
            polite(peer, frame)

    return answer


def test_each_publication_has_its_result() -> None:
    with fake_phoenix(refusing("e1")) as fake, publisher(fake) as (made, owner):
        made.publish(results(0, 1, 2))
        assert made.drain(90)
        assert owner.confirmed() == [0, 2]
        assert owner.rejected() == {1: "bad"}
        assert {each.confirmed_by for each in owner.settled if isinstance(each, Confirmation)} == {"reply"}


def test_results_share_a_push_and_others_follow_singly() -> None:
    with fake_phoenix() as fake, publisher(fake, batch=8) as (made, owner):
        made.publish([*results(0, 1), Publication("inference_failed", "e2", b'{"event_id":"e2"}', 2), *results(3)])
        assert made.drain(90)
        assert owner.confirmed() == [0, 1, 2, 3]
        assert [frame.event for frame in fake.frames if is_push(frame)] == ["new_results", "inference_failed"]


def test_a_refused_batch_is_taken_apart_and_drain_waits_for_its_results() -> None:
    with fake_phoenix(refusing("e1")) as fake, publisher(fake, batch=8) as (made, owner):
        made.publish(results(7, 8))
        assert made.drain(90)
        made.publish(results(0, 1, 2))
        assert made.drain(90)
        assert owner.confirmed() == [0, 2, 7, 8]
        assert owner.rejected() == {1: "bad"}


class Crashing:
    """A channel that crashes over the results named `bad`, in batches too, and loses what is queued behind."""

    def __init__(self, *bad: str) -> None:
        self.bad = bad
        self.crashes = 0
        self.dead: set[object] = set()

    def __call__(self, peer: Peer, frame: Frame) -> None:
        key = (peer.number, frame.join_ref)
        if not is_push(frame):
            polite(peer, frame)
        elif key not in self.dead:
            if any(f'"{name}"'.encode() in frame.text for name in self.bad):
                self.dead.add(key)
                self.crashes += 1
                peer.crash(frame)
            else:
                polite(peer, frame)


def test_results_that_crash_the_channel_are_found_while_only_batches_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that passes shows nothing about single results, so one result at a time goes singly."""
    monkeypatch.setattr(membership, "REJOIN", Schedule((0.05,)))
    channel = Crashing("e0", "e1")
    with fake_phoenix(channel) as fake, publisher(fake, batch=8) as (made, owner):
        made.publish(results(10, 11))
        assert made.drain(90)
        # Taken apart at once, and nothing else single: both are suspects, and end the channel one after the other.
        made.publish(results(0, 1))
        owner.wait_for(lambda: channel.crashes >= 2)
        following = iter(range(100, 100_000, 4))
        while len(owner.rejected()) < 2:
            made.publish(results(*range(start := next(following), start + 4)))
            with owner.changed:
                owner.changed.wait_for(lambda: len(owner.rejected()) == 2, 0.05)
        assert owner.rejected().keys() == {0, 1}
        warnings = [signal.text for signal in owner.signals if isinstance(signal, Warned)]
        assert not any("every new_result ends it" in text for text in warnings)


def test_drain_returns_false_while_a_result_is_missing() -> None:
    def silent(peer: Peer, frame: Frame) -> None:
        if not is_push(frame):
            polite(peer, frame)

    with fake_phoenix(silent) as fake, publisher(fake) as (made, _):
        made.publish(results(0))
        assert not made.drain(0.1)
        assert made.pending().count == 1


def test_after_a_stop_nothing_is_taken() -> None:
    with fake_phoenix() as fake, publisher(fake) as (made, _):
        made.stop()
        with pytest.raises(PublisherClosedError):
            made.publish(results(0))


def test_connection_and_flow_are_signals() -> None:
    with fake_phoenix() as fake, publisher(fake) as (_, owner):
        fake.peers[0].broadcast("service:inference", "flow", {"state": "pause"})
        owner.wait_for(lambda: Flow(paused=True) in owner.signals)
        connected = [signal for signal in owner.signals if isinstance(signal, ConnectionChanged)]
        assert {signal.side for signal in connected} == {"phoenix"}


def test_a_channel_without_batches_is_a_warning() -> None:
    with fake_phoenix(refusing("e0")) as fake, publisher(fake, batch=2) as (made, owner):
        made.publish(results(0, 1))
        assert made.drain(90)
        owner.wait_for(lambda: any(isinstance(signal, Warned) for signal in owner.signals))
        assert owner.confirmed() == [1]


def test_a_rejection_is_of_the_payload_that_was_pushed_last() -> None:
    owner = Owner()
    made: PhoenixPublisher[int] = PhoenixPublisher(PhoenixSettings(), PublishSettings(), owner.observe)
    made.report_to(owner.take)
    alert = Publication("inference_failed", "e0", b'{"whole":1}', 0, b'{"minimal":1}')
    members: tuple[Publication[int], ...] = (alert,)
    push = Push(alert.event, (alert.event_id,), alert.payload, members, alert.reduced)
    made._take([PushResult(push, rejection="no"), PushResult(push.without_payload(), rejection="no", crashes=2)])
    assert [each.publication.payload for each in owner.settled] == [alert.payload, alert.reduced]
    assert [each.crashes for each in owner.settled if isinstance(each, Rejection)] == [0, 2]
