"""A letter is found by the id that alerts, logs and dashboards show; only what is asked for moves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infertool.consumer.attempt import Decoding, Event
from infertool.deadletters import ids, letters
from tests.deadletters.replay.conftest import DeadLetters
from tests.support.messages import message
from tests.support.present import present
from tests.support.running import CREDENTIALS, infertool

pytestmark = pytest.mark.long

BY_PAYLOAD = b'{"n": 7, "event_id": "order-17", "request_id": "req-17"}'


def headers(dead: DeadLetters, number: int) -> dict[str, str]:
    """Return the headers of a letter whose producer gave none."""
    return {key: value for key, value in dead.letter(number).items() if key != "event_id"}


def peek(dead: DeadLetters, wanted: str, *, code: int = 0) -> dict[str, Any]:
    done = infertool("peek-dlq", dead.queue, "--id", wanted, "-o", "json", "--broker", dead.broker.url, **CREDENTIALS)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else {}


@pytest.mark.parametrize("wanted", ["order-17", "req-17", "ID:first-7"])
def test_a_letter_whose_body_alone_tells_its_ids(dead: DeadLetters, wanted: str) -> None:
    dead.fill(3)
    dead.put([(headers(dead, 7), BY_PAYLOAD)])
    shown = peek(dead, wanted)
    assert (shown["event_id"], shown["request_id"], shown["payload"]["n"]) == ("order-17", "req-17", 7)
    assert dead.replay("--id", wanted)["replayed"] == 1
    assert dead.numbers(dead.origin) == [7]
    assert dead.numbers(dead.queue) == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"dlq_event_id": "shown"}, "shown"),
        ({"dlq_request_id": "asked"}, "asked"),
        ({"correlation-id": "corr"}, "corr"),
        ({"event_id": "it's"}, "it's"),
    ],
)
def test_a_letter_whose_headers_tell_them(dead: DeadLetters, given: dict[str, str], wanted: str) -> None:
    dead.fill(2)
    dead.put([({**dead.letter(5), **given}, b'{"n": 5}')])
    shown = peek(dead, wanted)
    assert wanted in {shown["event_id"], shown["request_id"]}
    assert dead.replay("--id", wanted)["replayed"] == 1
    assert dead.numbers(dead.origin) == [5]


@pytest.mark.parametrize("body", [b'{"event_id": 12345678901234567890123456, "n": 1}', b'{"event_id": 5, "n": 1}'])
def test_a_number_is_an_id_as_the_consumer_shows_it(dead: DeadLetters, body: bytes) -> None:
    dead.put([(headers(dead, 1), body)])
    wanted = str(json.loads(body)["event_id"])
    assert peek(dead, wanted)["event_id"] == wanted
    assert dead.replay("--id", wanted)["replayed"] == 1


def test_the_table_shows_both_ids(dead: DeadLetters) -> None:
    dead.put([(headers(dead, 7), BY_PAYLOAD)])
    for options in ([], ["--id", "req-17"]):
        done = infertool("peek-dlq", dead.queue, *options, "--broker", dead.broker.url, **CREDENTIALS)
        assert "order-17" in done.stdout
        assert "req-17" in done.stdout


def moved(dead: DeadLetters) -> tuple[int, int]:
    """Return how many messages left the queue, and how many came to it."""
    depth = dead.depth()
    return present(depth.dequeued), present(depth.enqueued)


def test_only_what_is_asked_for_moves(dead: DeadLetters) -> None:
    """The others are never taken out: the broker counts what leaves the queue and what comes to it."""
    dead.fill(150)
    before = moved(dead)
    summary = dead.replay("--id", "e-7", "--id", "e-60", "--id", "e-140")
    after = moved(dead)
    assert (summary["replayed"], summary["not_matching"], summary["put_back"]) == (3, 0, 0)
    assert (after[0] - before[0], after[1] - before[1]) == (3, 0)
    assert dead.numbers(dead.origin) == [7, 60, 140]
    assert dead.numbers(dead.queue) == [n for n in range(150) if n not in {7, 60, 140}]


def test_a_copy_by_id_leaves_the_others_alone(dead: DeadLetters) -> None:
    dead.fill(20)
    dequeued, _ = moved(dead)
    assert dead.replay("--id", "e-7", "--copy")["replayed"] == 1
    assert moved(dead)[0] - dequeued == 1
    assert sorted(dead.numbers(dead.queue)) == list(range(20))


def test_an_id_that_is_not_there_among_others_that_are(dead: DeadLetters) -> None:
    dead.fill(5)
    assert dead.replay("--id", "e-1", "--id", "nobody")["replayed"] == 1
    assert dead.replay("--id", "nobody", code=4)["said"]
    assert dead.numbers(dead.queue) == [0, 2, 3, 4]


@pytest.mark.activemq
def test_one_far_back_that_a_selector_does_not_reach(real_dead: DeadLetters) -> None:
    real_dead.fill(1200)
    summary = real_dead.replay("--id", "e-1100")
    assert summary["replayed"] == 1
    assert real_dead.numbers(real_dead.origin) == [1100]
    assert sorted(real_dead.numbers(real_dead.queue)) == [n for n in range(1200) if n != 1100]


@pytest.mark.activemq
def test_one_far_back_that_only_its_body_tells(real_dead: DeadLetters) -> None:
    real_dead.fill(600)
    real_dead.put([(headers(real_dead, 7), BY_PAYLOAD)])
    summary = real_dead.replay("--id", "order-17")
    assert summary["replayed"] == 1
    assert "all letters are gone through" in summary["said"]
    assert real_dead.numbers(real_dead.origin) == [7]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"event_id":"p","request_id":9}',
        b'{"event_id":true,"request_id":[]}',
        b'{"event_id":1.5}',
        b'{"event_id":""}',
    ],
)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"event_id": "h"},
        {"original_message_id": "ID:o"},
        {"correlation-id": "c"},
        {"event_id": ""},
        {"event_id": "\udcff"},
    ],
)
def test_a_letter_is_known_as_the_consumer_showed_its_event(body: bytes, given: dict[str, str]) -> None:
    delivery = message(body, given=given)
    event = Event(delivery, ids.envelope_id(delivery))
    assert Decoding(1000).decode(event) is None
    letter = letters.read(message(body, message_id=delivery.id, dlq_stage="infer", given=given))
    shown = (ids.event_id(letter), ids.request_id(letter) or None)
    assert shown == (event.event_id, event.request_id)
    assert ids.is_known_as(letter, frozenset({event.event_id}))
    assert event.request_id is None or ids.is_known_as(letter, frozenset({event.request_id}))
