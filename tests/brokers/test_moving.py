"""Moves without transactions: what is acked, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from infertool.brokers.moving import ConfirmedMove
from infertool.brokers.port import Move, OnSent
from infertool.errors import ConnectionLostError, MoveRefusedError, RefusedError
from infertool.message import Message, Outgoing
from tests.support.brokers import TIMEOUT_S
from tests.support.messages import message

REFUSED = RefusedError("no", address="a", reason="full")


def answering(*answers: Exception | None) -> Callable[[Outgoing, OnSent], None]:
    """Return a send that answers at once, in this order; what is left over is never answered."""
    rest = list(answers)

    def send(_outgoing: Outgoing, on_sent: OnSent) -> None:
        if rest:
            on_sent(rest.pop(0))

    return send


def moved(send: Callable[[Outgoing, OnSent], None], *, timeout_s: float = 0.0) -> list[Message]:
    """Return what is acked of two messages with a dead letter each, and of one that is only removed."""
    acked: list[Message] = []
    moves = [Move(message(), Outgoing("dead", b"%d" % n)) for n in range(2)] + [Move(message(), None)]

    def ack(messages: Sequence[Message]) -> None:
        acked.extend(messages)

    step = ConfirmedMove(moves, timeout_s, send=send, ack=ack, address="a")
    try:
        step.commit()
    except (ConnectionLostError, MoveRefusedError):
        assert not acked
        raise
    step.wait()
    return acked


def test_all_is_acked_after_the_last_confirmation() -> None:
    assert len(moved(answering(None, None))) == 3


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ((None, REFUSED), MoveRefusedError),
        ((REFUSED, None), MoveRefusedError),
        ((None, ConnectionLostError("gone", address="a")), ConnectionLostError),
        ((None,), ConnectionLostError),
        ((), ConnectionLostError),
    ],
)
def test_nothing_is_acked_without_every_confirmation(
    answers: Sequence[Exception | None], error: type[Exception]
) -> None:
    with pytest.raises(error):
        moved(answering(*answers))


def test_a_send_that_is_refused_at_once_acks_nothing() -> None:
    def send(_outgoing: Outgoing, _on_sent: OnSent) -> None:
        raise REFUSED

    with pytest.raises(MoveRefusedError, match="to move messages to dead: full"):
        moved(send)


def test_all_sends_are_written_in_one_piece() -> None:
    written: list[list[Outgoing]] = []
    held: list[tuple[Outgoing, OnSent]] = []

    def flush() -> None:
        written.append([outgoing for outgoing, _ in held])
        for _, on_sent in held:
            on_sent(None)

    moves = [Move(message(), Outgoing("dead", b""), Outgoing("other", b"")) for _ in range(3)]
    ConfirmedMove(
        moves, TIMEOUT_S, send=lambda *sent: held.append(sent), flush=flush, ack=lambda _: None, address="a"
    ).commit()
    assert [len(each) for each in written] == [6]


def test_acks_are_waited_for_apart_from_the_commit() -> None:
    told: list[str] = []

    def refuse() -> None:
        raise REFUSED

    step = ConfirmedMove(
        [Move(message(), None)], TIMEOUT_S,
        send=answering(), ack=lambda _: refuse, address="a", failed=told.append,
    )  # fmt: skip
    step.commit()
    assert told == []
    with pytest.raises(MoveRefusedError, match="full"):
        step.wait()
    assert told == ["the broker refused a move: full"]


@pytest.mark.parametrize("answer", [REFUSED, ConnectionLostError("gone", address="a"), None])
def test_a_move_that_failed_is_told_once(answer: Exception | None) -> None:
    told: list[str] = []
    sends = answering(*([answer] if answer else []))
    step = ConfirmedMove(
        [Move(message(), Outgoing("dead", b""))], 0.0,
        send=sends, ack=lambda _: None, address="a", failed=told.append,
    )  # fmt: skip
    with pytest.raises((MoveRefusedError, ConnectionLostError)):
        step.commit()
    assert len(told) == 1
