"""Expressions that would take for ever on one letter: it stays and is named, the others are moved."""

from __future__ import annotations

from tests.deadletters.replay.conftest import DeadLetters

NESTED = "n == 1 || l.all(x, l.all(y, l.all(z, x + y + z >= 0)))"


def test_a_pattern_that_backtracks(dead: DeadLetters) -> None:
    dead.put((dead.letter(n, dlq_error="a" * 2000 + ("!" if n == 1 else "")), b'{"n": %d}' % n) for n in range(3))
    summary = dead.replay("--error", "(a+)+$")
    assert (summary["replayed"], summary["not_matching"]) == (2, 1)
    assert dead.numbers(dead.origin) == [0, 2]
    assert "look-around" in dead.replay("--error", "(?!a)", code=2)["said"]


def test_loops_in_loops(dead: DeadLetters) -> None:
    large = b'{"n": 1, "l": [%b]}' % b",".join(b"%d" % n for n in range(5000))
    dead.put((dead.letter(n), body) for n, body in enumerate([b'{"n": 0, "l": [1]}', large, b'{"n": 2, "l": [1, 2]}']))
    summary = dead.replay("--where", NESTED.replace("n == 1", "n == 7"))
    assert (summary["replayed"], summary["kept"]) == (2, 1)
    [reason] = summary["reasons"]
    assert "--where 'n == 7 || l.all(x, l.all(" in reason
    assert " e-1: it takes more than 2 s" in reason
    assert dead.numbers(dead.queue) == [1]
    assert dead.numbers(dead.origin) == [0, 2]
