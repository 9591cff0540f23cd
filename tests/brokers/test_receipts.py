"""Answers to sends: those that come together are told together, and each is its own message's."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from infertool.brokers.stomp.receipts import Receipts
from infertool.errors import ConnectionLostError, RefusedError, UnroutableError
from infertool.message import Outgoing
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, numbered
from tests.support.scripted import Line, Scripted

Ends = Sequence[tuple[Any, Exception | None]]


def test_confirmations_that_come_together_are_told_together() -> None:
    receipts, together, alone = Receipts("stomp://b"), list[Ends](), list[Exception | None]()
    ids = [receipts.expect(number, 60.0, 10, on_ends=together.append) for number in range(3)]
    single = receipts.expect(alone.append, 60.0)
    receipts.confirm([ids[0], single, "r7-unknown", ids[2], ids[0]])
    assert together == [[(0, None), (2, None)]]
    assert alone == [None]
    receipts.lose("cut")
    [[(token, error)]] = together[1:]
    assert token == 1
    assert isinstance(error, ConnectionLostError)
    assert not receipts.pending


def test_a_listener_that_raises_keeps_no_answer_from_others() -> None:
    receipts, told = Receipts("stomp://b"), list[Exception | None]()

    def fail(_told: object) -> None:
        raise LookupError

    ids = [receipts.expect(fail, 60.0), receipts.expect(0, 60.0, on_ends=fail), receipts.expect(told.append, 60.0)]
    receipts.confirm(ids)
    assert told == [None]


def test_a_refused_reply_has_no_queue() -> None:
    receipts, told = Receipts("stomp://b"), list[Exception | None]()
    receipt = receipts.expect(told.append, 60.0, reply_address="/remote-temp-queue/gone")
    receipts.refuse(receipt, "it is gone")
    [error] = told
    assert isinstance(error, UnroutableError)
    assert "/remote-temp-queue/gone" in str(error)


def test_a_refusal_among_confirmations_names_its_own_message(connect: Connect) -> None:
    def refuse_the_third(line: Line) -> None:
        line.connected()
        receipts = [line.expect("SEND")["receipt"] for _ in range(5)]
        answers = [f"RECEIPT\nreceipt-id:{receipt}\n\n\0\n" for receipt in receipts]
        answers[2] = f"ERROR\nreceipt-id:{receipts[2]}\nmessage:not here\n\nstack\0\n"
        line.send("".join(answers).encode())
        line.receipt("DISCONNECT")

    ends: SimpleQueue[Ends] = SimpleQueue()
    with Scripted(refuse_the_third) as server:
        broker = connect(server.url)
        broker.send_all(list(zip(numbered("/queue/q", 5), range(5), strict=True)), ends.put)
        found: list[tuple[int, Exception | None]] = []
        while len(found) < 5:
            found += ends.get(timeout=TIMEOUT_S)
        broker.close(TIMEOUT_S)
    assert [token for token, _ in found] == [0, 1, 2, 3, 4]
    assert [token for token, error in found if error] == [2]
    assert isinstance(found[2][1], RefusedError)


def test_what_is_too_large_is_refused_among_others(connect: Connect) -> None:
    """By itself, and before anything of it is written: the broker would close the connection over it."""

    def confirm_two(line: Line) -> None:
        line.connected()
        for _ in range(2):
            line.receipt("SEND")
        line.receipt("DISCONNECT")

    messages = numbered("/queue/q", 2)
    refused = [
        Outgoing("/queue/q", b"{}", headers={"x": "y" * 20_000}),
        Outgoing("/queue/q", b"{}", headers={f"n{number}": "" for number in range(1000)}),
    ]
    ends: list[tuple[str, Exception | None]] = []
    told: SimpleQueue[None] = SimpleQueue()

    def take(some: Ends) -> None:
        ends.extend(some)
        for _ in some:
            told.put(None)

    with Scripted(confirm_two) as server:
        broker = connect(server.url)
        broker.send_all(list(zip([messages[0], *refused, messages[1]], "abcd", strict=True)), take)
        for _ in range(4):
            told.get(timeout=TIMEOUT_S)
        broker.close(TIMEOUT_S)
    errors = dict(ends)
    assert errors.keys() == set("abcd")
    assert errors["a"] is errors["d"] is None
    assert all(isinstance(errors[name], RefusedError) for name in "bc")
