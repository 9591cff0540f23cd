"""Pending pushes: order, window, repeats, and what settles each."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from infertool.phoenix.pending_pushes import PendingPushes
from infertool.phoenix.suspects import Cause
from tests.phoenix.collect import push_of, pushes
from tests.support.examples import examples


def send(pending: PendingPushes[int], first_ref: int) -> list[int]:
    """Send all that may be sent, and return their numbers."""
    sent = []
    for ref, entry in enumerate(pending.take_sendable(0.0, 10.0), first_ref):
        pending.mark_sent(entry, str(ref), float(ref))
        sent.append(entry.number)
    return sent


def test_lost_pushes_come_first_and_in_order() -> None:
    pending = PendingPushes[int]()
    pending.accept(pushes(3))
    assert send(pending, 1) == [0, 1, 2]
    assert pending.settle_ref("2")
    pending.accept([push_of(3)])
    pending.lose(connection=True)
    assert send(pending, 10) == [0, 2, 3]
    assert pending.settle_ref("1") is None


def test_order_survives_a_repeat() -> None:
    pending = PendingPushes[int]()
    pending.accept(pushes(3))
    send(pending, 1)
    pending.take_back("new_result")
    assert send(pending, 10) == [0, 1, 2]


def test_a_crash_with_nothing_sent_accuses_nobody() -> None:
    pending = PendingPushes[int]()
    pending.accept(pushes(1))
    assert pending.crash(0.0, too_large=False) is None
    assert not pending.suspects.active


def test_equal_event_ids() -> None:
    """Two pushes may have one event_id, for example after a repeat by the caller: each needs its own confirmation."""
    pending = PendingPushes[int]()
    pending.accept([push_of(1), push_of(1)])
    send(pending, 1)
    first = pending.settle_event("e1")
    assert first
    assert first.ref == "1"
    assert len(pending) == 1


class AnyHistory(RuleBasedStateMachine):
    """After any steps, every push is either pending or was settled once; sending keeps the order."""

    def __init__(self) -> None:
        super().__init__()
        self.pending = PendingPushes[int]()
        self.accepted = 0
        self.settled: list[int] = []
        self.ref = 0

    @rule(count=st.integers(1, 5))
    def accept(self, count: int) -> None:
        self.pending.accept([push_of(self.accepted + number) for number in range(count)])
        self.accepted += count

    @rule()
    def send(self) -> None:
        numbers = send(self.pending, self.ref)
        self.ref += len(numbers)
        assert numbers == sorted(numbers)
        assert all(number not in self.settled for number in numbers)

    @precondition(lambda self: any(True for _ in self.pending.sent))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(list(self.pending.sent)))
        by_event = data.draw(st.booleans())
        entry = self.pending.settle_event(chosen.push.event_ids[0]) if by_event else self.pending.settle_ref(chosen.ref)
        assert entry is chosen
        self.settled.append(entry.number)

    @rule()
    def lose(self) -> None:
        self.pending.lose(connection=False)

    @rule()
    def crash(self) -> None:
        finding = self.pending.crash(0.0, too_large=False)
        if finding and finding.cause is Cause.PUSH:
            self.settled.append(finding.suspect.number)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.settled) == len(set(self.settled))
        assert len(self.pending) + len(self.settled) == self.accepted
        assert 0 <= self.pending.in_hand(0.0) <= len(self.pending)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = examples(50, stateful_step_count=30)
