"""The book: order and repeats."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from infertool.phoenix.ledger import Ledger
from infertool.phoenix.suspects import Cause
from tests.phoenix.collect import push_of, pushes


def send(ledger: Ledger, first_ref: int) -> list[int]:
    """Send all that may be sent, and return their numbers."""
    sent = []
    for ref, entry in enumerate(ledger.take_sendable(0.0, 10.0), first_ref):
        ledger.mark_sent(entry, str(ref), float(ref))
        sent.append(entry.number)
    return sent


def test_lost_pushes_come_first_and_in_order() -> None:
    ledger = Ledger()
    ledger.accept(pushes(3))
    assert send(ledger, 1) == [0, 1, 2]
    assert ledger.settle_ref("2")
    ledger.accept([push_of(3)])
    ledger.lose(connection=True)
    assert send(ledger, 10) == [0, 2, 3]
    assert ledger.settle_ref("1") is None


def test_order_survives_a_repeat() -> None:
    ledger = Ledger()
    ledger.accept(pushes(3))
    send(ledger, 1)
    ledger.take_back("new_result")
    assert send(ledger, 10) == [0, 1, 2]


def test_a_crash_with_nothing_sent_accuses_nobody() -> None:
    ledger = Ledger()
    ledger.accept(pushes(1))
    assert ledger.crash(0.0, too_large=False) is None
    assert not ledger.suspects.active


def test_equal_event_ids() -> None:
    """Two pushes may bear one event_id, such as a repeat by the caller: each needs its own proof."""
    ledger = Ledger()
    ledger.accept([push_of(1), push_of(1)])
    send(ledger, 1)
    first = ledger.settle_event("e1")
    assert first
    assert first.ref == "1"
    assert len(ledger) == 1


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens, every push is either still in the book or was settled once; sending keeps the order."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.accepted = 0
        self.settled: list[int] = []
        self.ref = 0

    @rule(count=st.integers(1, 5))
    def accept(self, count: int) -> None:
        self.ledger.accept([push_of(self.accepted + number) for number in range(count)])
        self.accepted += count

    @rule()
    def send(self) -> None:
        numbers = send(self.ledger, self.ref)
        self.ref += len(numbers)
        assert numbers == sorted(numbers)
        assert all(number not in self.settled for number in numbers)

    @precondition(lambda self: any(True for _ in self.ledger.sent))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(list(self.ledger.sent)))
        by_event = data.draw(st.booleans())
        entry = self.ledger.settle_event(chosen.push.event_ids[0]) if by_event else self.ledger.settle_ref(chosen.ref)
        assert entry is chosen
        self.settled.append(entry.number)

    @rule()
    def lose(self) -> None:
        self.ledger.lose(connection=False)

    @rule()
    def crash(self) -> None:
        finding = self.ledger.crash(0.0, too_large=False)
        if finding and finding.cause is Cause.PUSH:
            self.settled.append(finding.suspect.number)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.settled) == len(set(self.settled))
        assert len(self.ledger) + len(self.settled) == self.accepted
        assert 0 <= self.ledger.in_hand(0.0) <= len(self.ledger)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
