"""What cannot be moved over STOMP without harm stays where it is, whole."""

from __future__ import annotations

import pytest

from infertool.brokers.stomp.conventions import CONVENTIONS
from infertool.deadletters.replay.decide import MOST_REFUSALS, Decider, Fate, Plan
from tests.deadletters.replay.conftest import DeadLetters
from tests.support.messages import message
from tests.support.rawstomp import RawStomp

MAP = b'{"map":{"entry":{"string":["a","b"]}}}'


@pytest.mark.activemq
def test_a_map_message_keeps_its_body(real_dead: DeadLetters) -> None:
    real_dead.put([({"transformation": "jms-map-json"}, MAP)])
    real_dead.fill(300)
    summary = real_dead.replay("--where", "n % 2 == 0")
    assert (summary["replayed"], summary["kept"], summary["not_matching"]) == (150, 1, 150)
    assert any("JMS type" in reason for reason in summary["reasons"])
    raw = RawStomp(real_dead.broker.stomp_port)
    subscribe = {"destination": real_dead.queue, "ack": "auto", "transformation": "jms-map-json"}
    raw._write("SUBSCRIBE", {"id": "map", **subscribe}, b"")
    bodies = [raw._frame(10)[2] for _ in range(151)]
    raw.close()
    assert bodies.count(MAP) == 1
    assert real_dead.drain(real_dead.queue) == []


@pytest.mark.activemq
def test_more_of_them_than_the_window_carries_end_it(real_dead: DeadLetters) -> None:
    real_dead.put(({"transformation": "jms-map-json"}, MAP) for _ in range(150))
    real_dead.fill(20)
    done = real_dead.replay(code=1)
    assert "JMS tool" in done["said"]
    assert len(real_dead.drain(real_dead.queue)) + len(real_dead.drain(real_dead.origin)) == 170


@pytest.mark.activemq
def test_headers_that_no_broker_takes_back(real_dead: DeadLetters) -> None:
    many = {f"h{n}": "x" for n in range(990)}
    real_dead.put([(many, b'{"n": 7}'), (real_dead.letter(0), b'{"n": 0}')])
    summary = real_dead.replay("--to", real_dead.origin)
    assert (summary["replayed"], summary["kept"]) == (1, 1)
    assert real_dead.numbers(real_dead.origin) == [0]
    [(headers, body)] = real_dead.drain(real_dead.queue)
    assert body == b'{"n": 7}'
    assert many.items() <= headers.items()


def test_what_ends_the_connection_again_and_again_is_left_alone() -> None:
    decider = Decider(Plan(queue="/queue/dead", run="r", began=0.0, depth=None, to="/queue/in"), CONVENTIONS)
    letter = message(b"{}", message_id="ID:bad")
    for _ in range(3):
        decision = decider.decide(letter)
        assert decision.fate is Fate.REPLAY
        decider.lost(decision)
    assert decider.decide(letter).fate is Fate.HOLD
    assert decider.decide(message(b"{}", message_id="ID:good")).fate is Fate.REPLAY


def test_a_target_that_refuses_is_not_asked_for_ever() -> None:
    decider = Decider(Plan(queue="/queue/dead", run="r", began=0.0, depth=None, to="/queue/in"), CONVENTIONS)
    for n in range(MOST_REFUSALS):
        decision = decider.decide(message(b"{}", message_id=f"ID:{n}"))
        assert decider.refused(decision, "forbidden")
        assert decider.decide(decision.letter.message).fate is Fate.KEEP
    last = decider.decide(message(b"{}", message_id="ID:new"))
    assert (last.fate, last.why) == (Fate.KEEP, "the broker refuses all that is sent to /queue/in: forbidden")


def test_a_target_that_takes_others_is_asked_on_however_many_it_refuses() -> None:
    decider = Decider(Plan(queue="/queue/dead", run="r", began=0.0, depth=None, to="/queue/in"), CONVENTIONS)
    for n in range(3 * MOST_REFUSALS):
        decider.refused(decider.decide(message(b"{}", message_id=f"ID:odd-{n}")), "forbidden")
        decider.accepted(decider.decide(message(b"{}", message_id=f"ID:good-{n}")))
    assert decider.decide(message(b"{}", message_id="ID:new")).fate is Fate.REPLAY


def test_a_letter_that_staging_refuses_is_left_alone_and_a_staging_that_takes_nothing_ends_it() -> None:
    decider = Decider(Plan(queue="/queue/dead", run="r", began=0.0, depth=None), CONVENTIONS)
    for n in range(MOST_REFUSALS):
        decision = decider.decide(message(b"{}", message_id=f"ID:{n}"))
        assert decision.fate is Fate.KEEP
        assert decider.refused(decision, "no") is (n < MOST_REFUSALS - 1)
        assert decider.decide(decision.letter.message).fate is Fate.HOLD
