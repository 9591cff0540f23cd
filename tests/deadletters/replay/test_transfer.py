"""The state table of a transfer, each error at each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from infertool.brokers.port import Move, Transaction
from infertool.deadletters.replay.take import OnUndone, State, Transfer
from infertool.errors import ConnectionLostError, MoveRefusedError, StaleMessagesError
from tests.support.messages import message

STEPS = ("begin", "commit", "wait")
ERRORS = {
    State.NOT_DONE: StaleMessagesError("stale"),
    State.IN_DOUBT: ConnectionLostError("lost", address="a"),
    State.REFUSED: MoveRefusedError("refused", reason="no"),
}


class Broker:
    """A transaction that fails at one step."""

    def __init__(self, error: Exception | None = None, at: str = "") -> None:
        self.done: list[str] = []
        self._error = error
        self._at = at

    def begin(self, _moves: Sequence[Move]) -> Transaction:
        self._do("begin")
        return self

    def commit(self) -> None:
        self._do("commit")

    def wait(self) -> None:
        self._do("wait")

    def _do(self, step: str) -> None:
        self.done.append(step)
        if step == self._at and self._error:
            raise self._error


def transfer_of(told: list[str], *, atomic: bool = True) -> tuple[Transfer, list[Move]]:
    moves = [Move(message(b"%d" % n, epoch=3), None) for n in range(2)]
    on_lost: Callable[[Transfer], None] = lambda transfer: told.append(f"lost: {transfer.state}")  # noqa: E731
    on_undone: OnUndone = lambda messages: told.append(f"undone: {[each.body for each in messages]}")  # noqa: E731
    return Transfer(moves, atomic=atomic, on_lost=on_lost, on_undone=on_undone), moves


def test_what_the_broker_confirms_is_done() -> None:
    told: list[str] = []
    transfer, moves = transfer_of(told)
    broker = Broker()
    states = []
    steps: list[Callable[[], None]] = [lambda: transfer.begin(broker.begin), transfer.commit, transfer.wait]
    for step in steps:
        assert transfer.is_open
        step()
        states.append(transfer.state)
    assert states == [State.BEGUN, State.COMMITTING, State.DONE]
    assert not transfer.is_open
    assert not transfer.undo_if_in(moves[0].message)
    assert told == []


@pytest.mark.parametrize("state", ERRORS)
@pytest.mark.parametrize("step", STEPS)
def test_an_error_ends_it_at_any_step(state: State, step: str) -> None:
    told: list[str] = []
    transfer, _ = transfer_of(told)
    broker = Broker(ERRORS[state], step)
    transfer.begin(broker.begin)
    transfer.commit()
    transfer.wait()
    assert transfer.state is state
    assert not transfer.is_open
    assert broker.done == list(STEPS[: STEPS.index(step) + 1])
    assert (transfer.refusal is not None) == (state is State.REFUSED)
    assert told == [f"lost: {state}"]
    assert transfer.first.epoch == 3


@pytest.mark.parametrize("state", ERRORS)
def test_only_what_is_in_doubt_is_undone_when_it_comes_again(state: State) -> None:
    told: list[str] = []
    transfer, moves = transfer_of(told)
    transfer.begin(Broker(ERRORS[state], "begin").begin)
    assert not transfer.undo_if_in(message(b"another"))
    in_doubt = state is State.IN_DOUBT
    assert transfer.undo_if_in(moves[1].message) == in_doubt
    assert transfer.state is (State.UNDONE if in_doubt else state)
    assert told[1:] == ["undone: [b'0', b'1']"] * in_doubt


def test_where_moves_are_not_atomic_only_the_message_that_comes_again_is_undone() -> None:
    told: list[str] = []
    transfer, moves = transfer_of(told, atomic=False)
    transfer.begin(Broker(ERRORS[State.IN_DOUBT], "begin").begin)
    states = []
    for again, is_last in ((1, False), (1, False), (0, True)):
        assert transfer.undo_if_in(moves[again].message) == is_last
        states.append(transfer.state)
    assert states == [State.IN_DOUBT, State.IN_DOUBT, State.UNDONE]
    assert told[1:] == ["undone: [b'1']", "undone: [b'0']"]


def test_another_error_is_the_callers() -> None:
    transfer, _ = transfer_of([])
    with pytest.raises(ZeroDivisionError):
        transfer.begin(Broker(ZeroDivisionError(), "begin").begin)
