"""Two letters of one event, as a broker without atomic moves may leave them: recognised by their `dlq_id`."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from infertool.brokers.headers import text
from infertool.brokers.stomp.conventions import CONVENTIONS
from infertool.deadletters import letters, marks
from infertool.deadletters.record import Cause, dead_letter
from infertool.deadletters.replay import sending
from infertool.deadletters.replay.decide import Decider, Fate, Plan
from infertool.message import Message, Outgoing
from tests.support.messages import message, text_message

CAUSE = Cause("e", "", "infer", "E", "no", 1, "2026-01-01T00:00:01.000Z", "2026-01-01T00:00:00.000Z", "c", "m")
PLAN = Plan(queue="/queue/dead", run="r", began=0.0, depth=9, to="/queue/in")


def letter_of(event: Message, *, atomic: bool = False) -> Outgoing:
    return dead_letter(event, CAUSE, "/queue/dead", CONVENTIONS, atomic=atomic)


def delivered(sent: Outgoing, message_id: str) -> Message:
    return text_message(message_id, sent.destination, text(sent), sent.body, sent.kind, False, 1, "a")


def doubles() -> list[Message]:
    """Return two letters of one event, which was delivered and moved twice."""
    first, again = message(message_id="ID:e"), message(message_id="ID:e", redelivered=True, epoch=2)
    return [delivered(letter_of(first), "ID:1"), delivered(letter_of(again), "ID:2")]


def test_each_delivery_of_an_event_has_the_same_id_and_other_events_have_not() -> None:
    one, two = (letters.read(each).dlq_id for each in doubles())
    assert one == two
    assert letters.read(delivered(letter_of(message(message_id="ID:f")), "ID:3")).dlq_id not in {"", one}
    assert letters.read(delivered(letter_of(message(b"[]", message_id="ID:e")), "ID:3")).dlq_id not in {"", one}


def test_where_moves_are_atomic_there_is_no_id() -> None:
    assert "dlq_id" not in letter_of(message(), atomic=True).headers


def test_a_letter_keeps_its_id_in_staging_and_a_strangers_gets_one_of_ours() -> None:
    [dead, _] = doubles()
    staged = delivered(sending.staged(dead, "/queue/dead.scan", CONVENTIONS, atomic=False), "ID:3")
    assert letters.read(staged).dlq_id == letters.read(dead).dlq_id
    stranger = message(message_id="ID:s", dlq_id="mine")
    moved = delivered(sending.staged(stranger, "/queue/dead.scan", CONVENTIONS, atomic=False), "ID:4")
    assert letters.read(moved).dlq_id not in {"", "mine"}
    assert marks.producers(moved.headers)["dlq_id"] == "mine"


def test_a_replay_leaves_the_id_behind() -> None:
    [dead, _] = doubles()
    alive = sending.replay(letters.read(dead), "/queue/in", CONVENTIONS, replay_id="r-1")
    assert "dlq_id" not in alive.headers


def test_peek_shows_the_first_of_two() -> None:
    seen = [letters.read(each) for each in (*doubles(), message(), message())]
    shown, left_out = letters.once(seen)
    assert ([each.message.id for each in shown[:1]], len(shown), left_out) == (["ID:1"], 3, 1)


def test_replay_sends_the_first_and_only_removes_the_second() -> None:
    first, second = doubles()
    decider = Decider(PLAN, CONVENTIONS, atomic=False)
    assert [decider.decide(each).fate for each in (first, second, first)] == [Fate.REPLAY, Fate.DOUBLE, Fate.REPLAY]
    assert decider.decide(second).move().sends == []


def test_two_that_are_equal_in_everything_are_two_and_one_that_comes_again_is_one() -> None:
    """As where the message's id is the producer's, which a dead letter keeps."""
    first, _ = doubles()
    second = msgspec.structs.replace(first, token="b")
    again = msgspec.structs.replace(first, token="c", epoch=2)
    decider = Decider(PLAN, CONVENTIONS, atomic=False)
    fates = [decider.decide(each).fate for each in (first, first, second, again, again)]
    assert fates == [Fate.REPLAY, Fate.REPLAY, Fate.DOUBLE, Fate.REPLAY, Fate.REPLAY]


def test_one_that_is_given_back_on_the_same_connection_is_not_taken_for_a_double() -> None:
    """As after a move that the broker refused: nothing was sent, and taking it off would lose the event."""
    first, _ = doubles()
    decider = Decider(PLAN, CONVENTIONS, atomic=False)
    given_back = msgspec.structs.replace(first, token="b", redelivered=True)
    assert [decider.decide(each).fate for each in (first, given_back)] == [Fate.REPLAY, Fate.REPLAY]


def test_two_that_are_equal_are_two_also_in_a_look() -> None:
    shown = [msgspec.structs.replace(each, token="", epoch=0) for each in doubles()[:1] * 2]
    decider = Decider(PLAN, CONVENTIONS, atomic=False)
    assert [decider.decide(each).fate for each in shown] == [Fate.REPLAY, Fate.DOUBLE]


def test_a_replay_that_fails_again_is_another_letter() -> None:
    """Its message id may be that of the event; without a time of the broker's it would be the same letter."""
    [dead, _] = doubles()
    ids = {letters.read(dead).dlq_id}
    for number in (1, 2):
        sent = sending.replay(letters.read(dead), "/queue/in", CONVENTIONS, replay_id=f"r-{number}")
        ids.add(letters.read(delivered(letter_of(delivered(sent, "ID:e")), "ID:9")).dlq_id)
    assert len(ids) == 3


def test_the_second_stays_while_the_first_is_not_replayed() -> None:
    first, second = doubles()
    decider = Decider(PLAN, CONVENTIONS, atomic=False)
    decider.refused(decider.decide(first), "no")
    assert [decider.decide(each).fate for each in (first, second)] == [Fate.KEEP, Fate.REPLAY]
    other = Decider(replace(PLAN, to="/queue/dead"), CONVENTIONS, atomic=False)
    assert [other.decide(each).fate for each in (first, second)] == [Fate.KEEP, Fate.KEEP]


def test_a_copy_removes_nothing() -> None:
    first, second = doubles()
    decider = Decider(replace(PLAN, copy=True), CONVENTIONS, atomic=False)
    assert [decider.decide(each).fate for each in (first, second)] == [Fate.REPLAY, Fate.KEEP]


def test_letters_that_hold_something_else_are_others_whatever_their_headers_say() -> None:
    """An application may send events on with the headers that its own event came with, also those of a replay."""
    moved = {"infertool_replay": "infertool/1", "replay_id": "moved-1", "original_message_id": "ID:first"}
    events = [message(b"[%d]" % number, given=moved) for number in range(3)]
    sent_on = [delivered(letter_of(each, atomic=True), f"ID:{number}") for number, each in enumerate(events)]
    read = [letters.read(each) for each in sent_on]
    assert {letter.dlq_id for letter in read} == {"moved-1"}
    assert letters.once(read) == (read, 0)
    decider = Decider(PLAN, CONVENTIONS)
    assert [decider.decide(each).fate for each in sent_on] == [Fate.REPLAY] * 3


def test_an_id_that_is_a_number_hides_no_other_letter() -> None:
    read = [letters.read(message(b"[%d]" % n, given={} if n else {"infertool_own_dlq_id": "1"})) for n in range(3)]
    assert letters.once(read) == (read, 0)
