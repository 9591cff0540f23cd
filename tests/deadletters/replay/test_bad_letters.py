"""Dead letters that are odd, and queues that are not there."""

from __future__ import annotations

import json

import pytest

from tests.deadletters.replay.conftest import DeadLetters
from tests.support.activemq import ActiveMQ
from tests.support.rawstomp import RawStomp


def test_an_empty_queue(dead: DeadLetters) -> None:
    assert "empty, or does not exist" in dead.replay(code=4)["said"]


def test_nothing_matches(dead: DeadLetters) -> None:
    dead.fill(5)
    assert "nothing" in dead.replay("--stage", "publish", code=4)["said"]
    assert dead.numbers(dead.queue) == list(range(5))


def test_nothing_matches_deep_down(real_dead: DeadLetters) -> None:
    real_dead.fill(600)
    assert real_dead.replay("--stage", "publish", code=4)["not_matching"] == 600
    assert real_dead.numbers(real_dead.queue) == list(range(600))


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        ("/topic/prices", "not one queue"),
        ("/queue/a.>", "not one queue"),
        ("/remote-temp-queue/ID\\cgone-1", "not one queue"),
        ("{queue}", "this very queue"),
        ("", "--to"),
    ],
)
def test_an_origin_that_is_none(dead: DeadLetters, origin: str, why: str) -> None:
    letters = [(dead.letter(n), b'{"n": %d}' % n) for n in range(3)]
    letters[1][0]["original_destination"] = origin.format(queue=dead.queue)
    dead.put(letters)
    summary = dead.replay()
    assert (summary["replayed"], summary["kept"]) == (2, 1)
    assert why in next(iter(summary["reasons"]))
    assert dead.replay("--to", f"{dead.origin}.else")["replayed"] == 1
    assert dead.numbers(f"{dead.origin}.else") == [1]


def test_what_somebody_put_there_by_hand(dead: DeadLetters) -> None:
    dead.put([({}, b"hello")])
    assert "nothing says where it came from" in dead.replay(code=4)["said"]
    assert dead.replay("--to", dead.origin)["replayed"] == 1
    [(headers, body)] = dead.drain(dead.origin)
    assert body == b"hello"
    assert headers["replay_count"] == "1"


@pytest.mark.activemq
def test_what_activemq_dead_lettered_itself(activemq: ActiveMQ, real_dead: DeadLetters) -> None:
    real_dead.put(
        [({"event_id": "nacked"}, b'{"n": 1}'), ({"event_id": "expired", "expires": "1600000000000"}, b'{"n": 2}')],
        queue=real_dead.origin,
    )
    raw = RawStomp(activemq.stomp_port)
    raw._write("SUBSCRIBE", {"id": "1", "destination": real_dead.origin, "ack": "client-individual"}, b"")
    _, headers, _ = raw._frame(10)
    raw._receipt("NACK", {"id": headers["ack"]}, b"")
    raw.close()
    brokers_own = f"/queue/DLQ.{real_dead.origin.removeprefix('/queue/')}"
    dead_lettered = DeadLetters(activemq, real_dead.folder, real_dead.origin, brokers_own)
    said = dead_lettered.replay("--dry-run")["said"]
    assert "broker" in said
    assert "Expired" in said
    assert dead_lettered.replay()["replayed"] == 2
    found = {headers["event_id"]: headers for headers, _ in dead_lettered.drain(real_dead.origin)}
    assert found.keys() == {"nacked", "expired"}
    assert found["expired"].get("expires", "0") == "0"
    gone = {"original-destination", "originalExpiration", "dlqDeliveryFailureCause"}
    assert not [header for headers in found.values() for header in gone & headers.keys()]


def test_broken_bodies_and_headers_come_through(dead: DeadLetters) -> None:
    odd = {"odd": "a\\\\b\\nc", "\u00fcber": "\u2713"}
    dead.put([(dead.letter(1, **odd), b"\xff\xfe"), (dead.letter(2, **odd), b"")])
    assert dead.replay()["replayed"] == 2
    found = {headers["event_id"]: (headers, body) for headers, body in dead.drain(dead.origin)}
    assert found["e-2"][1] == b""
    assert found["e-1"][0]["odd"] == "a\\b\nc"
    assert found["e-1"][0]["\u00fcber"] == "\u2713"


def test_a_body_of_fifty_megabytes(dead: DeadLetters) -> None:
    big = json.dumps({"n": 1, "pad": "x" * 50_000_000}).encode()
    dead.put([(dead.letter(0), b'{"n": 0}'), (dead.letter(1), big), (dead.letter(2), b'{"n": 2}')])
    assert dead.replay("--where", "n > 0")["replayed"] == 2
    assert dead.numbers(dead.origin) == [1, 2]
    assert dead.numbers(dead.queue) == [0]
