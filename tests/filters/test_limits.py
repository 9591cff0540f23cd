"""A slow expression or pattern is ended, or runs in bounded time; the others still work."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.brokers.stomp.conventions import CONVENTIONS
from infertool.channels.event import ChannelEvent
from infertool.deadletters.replay.decide import Decider, Fate, Plan
from infertool.deadletters.selection import select
from infertool.embedded.broker import selectors
from infertool.embedded.broker.messages import StoredMessage
from infertool.errors import UsageError
from infertool.filters import expression as filters
from infertool.filters import regex
from infertool.filters.evaluator import Evaluator, TooLongError
from infertool.filters.expression import NotEvaluatedError
from infertool.watch.entry import read
from infertool.watch.listing import Listing
from tests.support.messages import message

# An evaluation is ended after seconds of processor time.
pytestmark = pytest.mark.long

# Each of these would take an hour and more.
FOR_EVER = [
    ("l.all(x, l.all(y, l.all(z, x + y + z >= 0)))", {"l": list(range(5000))}),
    ("l.all(x, payload.l.exists(y, l.exists_one(z, z == x + y)) || true)", {"l": list(range(5000))}),
    ("l.map(x, l).all(y, y.all(z, l.all(a, a + z >= 0)))", {"l": list(range(5000))}),
    ("[s]" + ".map(x, x + x)" * 60 + ".size() == 1", {"s": "aaaaaaaa"}),
]
NESTED = FOR_EVER[0][0]
LONG = "a" * 8000 + "!"


@pytest.mark.parametrize(("expression", "payload"), FOR_EVER)
def test_an_endless_evaluation_is_ended(expression: str, payload: dict[str, Any]) -> None:
    compiled = filters.compile(expression)
    with pytest.raises(NotEvaluatedError, match="takes more than"):
        compiled.matches(payload)
    assert filters.compile("l.size() == 2 || s == 'aaaaaaaa'").matches({"l": [1, 2]})


def test_the_next_evaluation_works() -> None:
    compiled = filters.compile(NESTED)
    numbers = list(range(100))
    for _ in range(2):
        with pytest.raises(NotEvaluatedError):
            compiled.matches({"l": list(range(5000))})
        assert compiled.matches({"l": numbers[:40]})
    assert not filters.compile("l.all(x, l.all(y, x < y))").matches({"l": numbers * 20})
    with pytest.raises(filters.FilterError, match="of type list"):
        filters.compile("l.map(x, l.map(y, x))").matches({"l": numbers * 2})


@given(st.lists(st.integers(-9, 9), max_size=12), st.integers(1, 40))
def test_evaluations_in_this_process_and_in_the_evaluator_agree(numbers: list[int], times: int) -> None:
    expression = "l.exists(x, l.exists(y, x + y == 7))"
    expected = any(x + y == 7 for x in numbers for y in numbers)
    assert filters.compile(expression).matches({"l": numbers * times}) == expected


def test_memory_is_bounded_too() -> None:
    evaluator = Evaluator(limit_s=600)
    with pytest.raises(TooLongError, match="memory"):
        evaluator.execute("[s]" + ".map(x, x + x)" * 60 + ".size() == 1", {"s": "aaaaaaaa"})
    assert evaluator.execute("a == 1", {"a": 1}) is True
    with pytest.raises(RuntimeError):
        evaluator.execute("a.b == 1", {"a": 1})
    evaluator.end()


@pytest.mark.parametrize(
    ("expression", "loops"),
    [
        ("a == '.all('", 0), ('a == "x.map(" && b', 0), ("all(a)", 0), ("a.all(x, x > 0)", 1),
        ("a . exists_one (x, x)", 1),
        ("a.map(x, x.filter(y, y > 1)).exists(z, true)", 3), ("a.b.mapped(x)", 0),
        (r"a == 'it\'s .all(' && l.all(x, x)", 1),
    ],
)  # fmt: skip
def test_loops_are_counted(expression: str, loops: int) -> None:
    assert filters.macros(expression) == loops


@pytest.mark.parametrize("loops", [1, 2, 3])
def test_small_evaluations(loops: int) -> None:
    assert filters.is_small(0, "a == 1", {"a": "x" * 10**6})
    assert filters.is_small(loops, "", {"a": [1, 2, 3]})
    for large in ([0] * 1001, [[0] * 100] * 100, {str(n): {"a": n} for n in range(1001)}, "x" * 1_000_000):
        assert not filters.is_small(loops, "", {"a": large})


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|aa)+$", "(a|a)*$", "(.*a){20}$", "(a*)*b", r"(\w+\s?)+$", "^(([a-z])+.)+[A-Z]$"]
)
def test_patterns_take_linear_time(pattern: str) -> None:
    found = regex.compile(pattern)
    for _ in range(3):
        found.search(LONG)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("timeout", "ValueError: Read TIMEOUT", True), ("^Value", "ValueError: x", True), ("x$", "ValueError: x", True),
        ("a|b", "ccc", False), (r"\d{3}", "a 123 b", True), ("größe", "GRÖSSE größe", True), (".", "\udcff", True),
        ("", "", True), ("(a+)+$", "baaa", True), ("(a+)+$", LONG, False),
    ],
)  # fmt: skip
def test_patterns_find_what_they_should(pattern: str, text: str, found: bool) -> None:
    compiled = regex.compile(pattern)
    assert compiled.search(text) is found
    assert compiled.search(text) is found


@pytest.mark.parametrize(
    ("pattern", "why"),
    [("(", "unclosed group"), ("[", "unclosed character class"), ("(?=a)", "look-around"), (r"(a)\1", "backreferences"),
     ("(a{1000}){1000}", "too large"), ("a**", "")],
)  # fmt: skip
def test_an_invalid_pattern_names_the_reason(pattern: str, why: str) -> None:
    if pattern == "a**":
        regex.compile(pattern)
        return
    with pytest.raises(UsageError, match=f"--error .* is no regular expression: .*{why}"):
        select(error=pattern, now=0.0)


def test_a_letter_that_takes_for_ever_stays_and_is_named() -> None:
    selection = select(where=NESTED, now=0.0)
    decider = Decider(
        Plan(queue="/queue/d", run="r", began=0.0, depth=3, selection=selection, to="/queue/t"), CONVENTIONS
    )
    large = b'{"l":[%b]}' % b",".join(b"%d" % n for n in range(5000))
    fates = [
        decider.decide(message(body, event_id=name, dlq_stage="infer"))
        for name, body in (("e-1", b'{"l":[1]}'), ("e-2", large), ("e-3", b'{"l":[2]}'))
    ]
    assert [each.fate for each in fates] == [Fate.REPLAY, Fate.KEEP, Fate.REPLAY]
    assert "--where 'l.all(x" in fates[1].why
    assert "e-2" in fates[1].why


def test_watch_leaves_it_out_and_shows_the_others() -> None:
    listing = Listing(100)
    payloads = [{"l": [n]} for n in range(4)]
    payloads.insert(2, {"l": list(range(5000))})
    listing.add([read(n, ChannelEvent("t", "e", payload, 1.0)) for n, payload in enumerate(payloads, 1)])
    compiled = filters.compile(NESTED)
    assert listing.fault_of(compiled) == ""
    listing.set_filter(compiled)
    while listing.work():
        pass
    assert listing.count == 4
    assert "too long" in listing.filter_error


def like(pattern: str, text: str) -> bool:
    message = cast("StoredMessage", SimpleNamespace(headers={"n": text}))
    return selectors.compile_selector(f"n LIKE '{pattern}'")(message)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("a%", "abc", True), ("%c", "abc", True), ("%b%", "abc", True), ("a_c", "abc", True), ("a_c", "abbc", False),
        ("%", "", True), ("", "", True), ("", "a", False), ("ab%bc", "abc", False), ("ab%bc", "abbc", True),
        ("%%", "x", True),
        ("a%b%c", "a-b-c", True), ("a%b%c", "acb", False), ("_%_", "a", False), ("_%_", "ab", True),
        (".*", "xy", False),
        ("%" + "a%" * 40 + "b", "a" * 3000, False),
    ],
)  # fmt: skip
def test_like_takes_no_time_either(pattern: str, text: str, expected: bool) -> None:
    assert like(pattern, text) is expected


def test_a_plain_filter_starts_no_process() -> None:
    before = time.process_time()
    compiled = filters.compile("l.exists(x, x == 3) && s == 'a'")
    assert compiled.matches({"l": [1, 2, 3], "s": "a", "other": list(range(100_000))})
    assert time.process_time() - before < 20
