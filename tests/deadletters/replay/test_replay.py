"""Replaying: what is moved, what is left, and in which order."""

from __future__ import annotations

import json

import pytest

from tests.deadletters.replay.conftest import DeadLetters

OF_DELIVERY = {"message-id", "subscription", "ack", "destination", "timestamp", "expires", "content-length"}


def test_all_go_back_to_where_they_came_from(dead: DeadLetters) -> None:
    dead.fill(250)
    summary = dead.replay()
    assert summary["replayed"] == 250
    assert summary["targets"] == {dead.origin: 250}
    assert dead.numbers(dead.origin) == list(range(250))
    assert dead.drain(dead.queue) == []


def test_a_filter_moves_exactly_what_matches_and_leaves_the_others_in_order(dead: DeadLetters) -> None:
    dead.fill(1000)
    summary = dead.replay("--where", "n % 7 == 3")
    matching = [n for n in range(1000) if n % 7 == 3]
    assert (summary["replayed"], summary["not_matching"]) == (len(matching), 1000 - len(matching))
    assert dead.numbers(dead.origin) == matching
    assert dead.numbers(dead.queue) == [n for n in range(1000) if n % 7 != 3]
    assert dead.drain(dead.staging) == []


def test_an_event_keeps_what_is_its_own_and_loses_what_was_its_death(dead: DeadLetters) -> None:
    own = {"correlation-id": "c 1", "type": "order", "priority": "7", "reply-to": "/queue/answers", "tenant": "a\\cb"}
    dead.put([(dead.letter(1, **own), '{"n": "\u00e4"}'.encode())])
    dead.replay()
    [(headers, body)] = dead.drain(dead.origin)
    assert body == '{"n": "\u00e4"}'.encode()
    assert headers["persistent"] == "true"
    assert headers["tenant"] == "a:b"
    assert {key: headers[key] for key in own if key != "tenant"} == {k: v for k, v in own.items() if k != "tenant"}
    assert (headers["event_id"], headers["original_message_id"], headers["replay_count"]) == ("e-1", "ID:first-1", "1")
    assert headers["original_timestamp"] <= headers["timestamp"]
    assert not [key for key in headers if key.startswith("dlq")]
    assert "content-length" not in headers


def test_bytes_stay_bytes(dead: DeadLetters) -> None:
    dead.put([(dead.letter(1), b"\x00\xff\x00")], as_bytes=True)
    dead.replay()
    [(headers, body)] = dead.drain(dead.origin)
    assert (body, headers["content-length"]) == (b"\x00\xff\x00", "3")


def test_what_is_left_out_is_unchanged(dead: DeadLetters) -> None:
    letters = [
        (dead.letter(1, expires="99999999999999", priority="2"), b'{"n": 1}'),
        (dead.letter(2, **{"original-destination": "/queue/x", "timestamp": "1600000000000"}), b'{"n": 2}'),
    ]
    dead.put(letters)
    dead.put([(dead.letter(3), b"\xff\x00\xff")], as_bytes=True)
    dead.put([(dead.letter(4), b'{"n": 4}')])
    assert dead.replay("--where", "n == 4")["replayed"] == 1
    left = {headers["event_id"]: (headers, body) for headers, body in dead.drain(dead.queue)}
    assert left["e-1"][0]["expires"] == "99999999999999"
    assert left["e-1"][0]["priority"] == "2"
    assert left["e-2"][0]["timestamp"] == "1600000000000"
    assert left["e-2"][0]["original-destination"] == "/queue/x"
    assert left["e-3"][1] == b"\xff\x00\xff"
    assert left["e-3"][0]["content-length"] == "3"
    assert all(headers["dlq_error"] == "cannot" for headers, _ in left.values())
    assert not [key for headers, _ in left.values() for key in headers if key.startswith("staged")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--stage", "decode"], [1]),
        (["--error", "time.?out"], [2]),
        (["--since", "2026-02-01T00:00:00Z"], [3]),
        (["--until", "2026-01-31T01:00:00+00:00"], [4]),
        (["--id", "e-5", "--id", "ID:first-6"], [5, 6]),
        (["--where", 'headers["tenant"] == "gold"'], [7]),
        (["--where", "n > 0", "--stage", "infer", "--limit", "2"], [2, 3]),
    ],
)
def test_choosing(dead: DeadLetters, options: list[str], expected: list[int]) -> None:
    changes = {
        1: {"dlq_stage": "decode"},
        2: {"dlq_error": "a TIMEOUT"},
        3: {"dlq_failed_at": "2026-02-02T00\\c00\\c00Z"},
        4: {"dlq_failed_at": "2026-01-30T00\\c00\\c00Z"},
        7: {"tenant": "gold"},
    }
    dead.put((dead.letter(n, **changes.get(n, {})), b'{"n": %d}' % n) for n in range(9))
    assert dead.replay(*options)["replayed"] == len(expected)
    assert dead.numbers(dead.origin) == expected
    assert sorted(dead.numbers(dead.queue)) == [n for n in range(9) if n not in expected]


def test_to_another_queue(dead: DeadLetters) -> None:
    dead.fill(3)
    dead.replay("--to", f"{dead.origin.removeprefix('/queue/')}.else")
    assert dead.numbers(f"{dead.origin}.else") == [0, 1, 2]
    assert dead.drain(dead.origin) == []


def test_a_copy_leaves_the_original(dead: DeadLetters) -> None:
    dead.fill(150)
    summary = dead.replay("--copy", "--limit", "120")
    assert (summary["replayed"], summary["put_back"]) == (120, 120)
    assert dead.numbers(dead.origin) == list(range(120))
    letters = dead.drain(dead.queue)
    assert sorted(json.loads(body)["n"] for _, body in letters) == list(range(150))
    assert {headers["replay_count"] for headers, _ in letters} == {"0"}


def test_a_limit_ends_it_in_mid_queue(dead: DeadLetters) -> None:
    dead.fill(300)
    summary = dead.replay("--limit", "130", "--batch", "50")
    assert (summary["replayed"], summary["ended"]) == (130, "limit")
    assert dead.numbers(dead.origin) == list(range(130))
    assert dead.numbers(dead.queue) == list(range(130, 300))


def test_it_may_be_run_with_a_rate(dead: DeadLetters) -> None:
    dead.fill(60)
    assert dead.replay("--rate", "100/s")["replayed"] == 60
    assert dead.numbers(dead.origin) == list(range(60))


@pytest.mark.parametrize("beside", [".lock", ".scan"])
def test_a_letter_from_a_queue_that_runs_need_stays(dead: DeadLetters, beside: str) -> None:
    place = f"{dead.queue}{beside}"
    dead.put([(dead.letter(0, original_destination=place), b'{"n": 0}'), (dead.letter(1), b'{"n": 1}')])
    assert dead.replay()["replayed"] == 1
    assert dead.numbers(dead.origin) == [1]
    assert dead.numbers(dead.queue) == [0]
    assert not dead.drain(place)


def test_what_another_program_has_in_the_lock_queue_stays_there(dead: DeadLetters) -> None:
    place = f"{dead.queue}.lock"
    dead.put([({"lock_token": "mine"}, b"{}"), ({}, b"{}")], queue=place)
    dead.fill(3)
    said = dead.replay(code=1)["said"]
    assert f"{place}, where the runs that work on {dead.queue} meet, holds messages of another program" in said
    assert "--force" in said
    assert dead.replay("--force")["replayed"] == 3
    assert [body for _, body in dead.drain(place)].count(b"{}") == 2
