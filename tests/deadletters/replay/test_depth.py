"""A queue far deeper than a default ActiveMQ shows, and a Java consumer at its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deadletters.replay.conftest import DeadLetters
from tests.support import jms

pytestmark = pytest.mark.long

LETTERS = 5000
OWN = ("event_id", "correlation-id", "priority", "tenant", "original_message_id")


def letters(dead: DeadLetters) -> Iterator[Any]:
    for n in range(LETTERS):
        own = {"correlation-id": f"c-{n}", "priority": "4", "tenant": f"t\\c{n % 3}"}
        yield dead.letter(n, **own), json.dumps({"n": n, "seventh": n % 7 == 0, "text": "\u00e4" * 20}).encode()


def own_headers(headers: dict[str, str]) -> tuple[str, ...]:
    return tuple(headers[name] for name in OWN)


def expected(n: int) -> tuple[str, ...]:
    return f"e-{n}", f"c-{n}", "4", f"t:{n % 3}", f"ID:first-{n}"


def test_one_in_seven_of_five_thousand(dead: DeadLetters) -> None:
    dead.put(letters(dead))
    summary = dead.replay("--where", "seventh")
    matching = list(range(0, LETTERS, 7))
    assert (summary["replayed"], summary["not_matching"]) == (len(matching), LETTERS - len(matching))
    there, here = dead.drain(dead.origin), dead.drain(dead.queue)
    assert [own_headers(headers) for headers, _ in there] == [expected(n) for n in matching]
    assert [own_headers(headers) for headers, _ in here] == [expected(n) for n in range(LETTERS) if n % 7]
    assert not [headers for headers, _ in there + here if "content-length" in headers]
    assert {headers["dlq_error"] for headers, _ in here} == {"cannot"}
    assert dead.drain(dead.staging) == []


@pytest.mark.activemq
def test_a_java_consumer_reads_text_messages(real_dead: DeadLetters) -> None:
    real_dead.put(letters(real_dead))
    real_dead.replay("--where", "seventh")
    texts = jms.consume(real_dead.broker, real_dead.origin, len(range(0, LETTERS, 7)), real_dead.folder)
    assert [json.loads(text)["n"] for text in texts] == list(range(0, LETTERS, 7))


@pytest.mark.activemq
def test_mixed_priorities_keep_their_order_within_each(real_dead: DeadLetters) -> None:
    real_dead.put((real_dead.letter(n, priority=str(n % 10)), b'{"n": %d}' % n) for n in range(1400))
    assert real_dead.replay("--where", "n % 7 == 0")["replayed"] == 200
    for queue, numbers in (
        (real_dead.origin, range(0, 1400, 7)),
        (real_dead.queue, [n for n in range(1400) if n % 7]),
    ):
        found = real_dead.numbers(queue)
        assert sorted(found) == list(numbers)
        for priority in range(10):
            of_priority = [n for n in found if n % 10 == priority]
            assert of_priority == sorted(of_priority)
