"""Events that a filter matches, events that it does not, and expressions that it rejects."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from infertool.filters import expression as filters
from infertool.filters.expression import FilterError

EVENT = {
    "status": "FAILED",
    "attempts": 3,
    "prediction": {"class": "A", "confidence": 0.3, "a-b": 1, "in": 2},
    "items": [{"price": 4}, {"price": 6}],
    "class": "X",
    "if": True,
    "topic": "the payload's",
    "note": None,
    "big": 2**63 + 5,
    "huge": 2**70,
    "nan": float("nan"),
    "": "empty",
    "größe": 5,
}


def matches(expression: str, payload: object = EVENT, **beside: Any) -> bool:
    return filters.compile(expression).matches(payload, **beside)


@pytest.mark.parametrize(
    "expression",
    [
        "status == 'FAILED' && prediction.confidence < 0.5",
        "prediction.class == 'A'",
        "class == 'X'",
        "payload.if",
        "payload['if'] && payload[''] == 'empty' && payload['größe'] == 5",
        "prediction['a-b'] == 1 && prediction['in'] == 2",
        "items.exists(item, item.price > 5)",
        "items.filter(i, i.price > 5).size() == 1 && items.map(i, i.price) == [4, 6]",
        "size(items) == 2 && attempts in [1, 2, 3]",
        "attempts > 2.5 && attempts == 3.0",
        "status.startsWith('FA') && status.matches('^F.*D$')",
        "note == null",
        "has(payload.status) && !has(payload.nothing)",
        "nothing == 1 || status == 'FAILED'",
        "big == 9223372036854775813u",
        "huge > 1.0",
        "nan != nan",
        "topic == 't' && payload.topic != topic",
        "timestamp('2026-01-01T00:00:00Z').getFullYear() == 2026",
        "true // with a comment",
        "status ==\n  'FAILED'",
    ],
)
def test_matching(expression: str) -> None:
    assert matches(expression, topic="t")


@pytest.mark.parametrize(
    "expression",
    [
        "nothing == 1",
        "nothing != 1",
        "!nothing",
        "prediction.nothing == 1",
        "prediction.class.deeper == 1",
        "status < 3",
        "status && true",
        "items[9].price == 1",
        "items['x'] == 1",
        "attempts / 0 == 1",
        "attempts + 9223372036854775807 > 0",
        "int(status) == 1",
        "items.all(i, i.nothing > 1)",
        "nothing == 1 && status == 'FAILED'",
        "status.matches(status + '(')",
    ],
)
def test_a_missing_field_or_a_misfit_is_no_match(expression: str) -> None:
    assert not matches(expression)


def test_names_beside_the_payload() -> None:
    expression = "headers['x-tenant'] == 'acme' && topic == 'public:results' && event == 'new_result'"
    headers = MappingProxyType({"x-tenant": "acme"})
    assert matches(expression, headers=headers, topic="public:results", event="new_result")
    assert not matches(expression)


def test_reserved_names_win_over_fields() -> None:
    payload = {"payload": 1, "headers": 2, "topic": 3, "event": 4}
    assert matches(
        "topic == 't' && event == 'e' && payload.topic == 3 && payload.payload == 1", payload, topic="t", event="e"
    )


def test_names_that_are_not_given_are_those_of_fields() -> None:
    """A dead letter has no topic, and an event of a topic no headers."""
    payload = {"payload": 1, "headers": {"a": 2}, "topic": 3, "event": 4}
    assert matches("headers['a'] == 2 && topic == 3 && event == 4 && payload.payload == 1", payload)
    assert not matches("event == 4 || topic == 4", {"n": 1})


@pytest.mark.parametrize("payload", [[1], "text", None, 5])
def test_a_payload_that_is_no_object(payload: list[int] | str | int | None) -> None:
    assert not matches("status == 'x'", payload)
    assert matches("event == 'e'", payload, event="e")


@pytest.mark.parametrize("odd", [{1: 2, None: 3}, {1, 2}, "\ud800", object(), {(1, 2): 3}])
def test_values_that_json_cannot_hold_do_not_match_and_do_not_disturb(odd: object) -> None:
    assert not matches("odd == 1", {"odd": odd})
    assert matches("a == 1", {"odd": odd, "a": 1, 7: 8})


def nested(depth: int) -> object:
    return orjson.loads("[" * depth + "]" * depth)


def test_deep_nesting_ends_no_process_even_on_a_small_stack() -> None:
    found: list[bool] = []
    deeper: list[object] = [nested(1000)]
    for _ in range(20):
        deeper = [deeper, {"x": nested(1000)}]
    previous = threading.stack_size(1024 * 1024)
    try:
        thread = threading.Thread(
            target=lambda: found.extend(matches("size(a) >= 1", {"a": a}) for a in (nested(90), nested(1000), deeper))
        )
        thread.start()
        thread.join(60)
    finally:
        threading.stack_size(previous)
    assert found == [True, False, False]


def test_deep_fields_that_the_expression_does_not_name_do_not_matter() -> None:
    assert matches("b == 1", {"a": nested(1000), "b": 1})


@pytest.mark.parametrize(
    ("expression", "reason", "line", "column"),
    [
        ("status ==", "something is missing at its end", 1, 10),
        ("(status", "missing ')' at its end", 1, 8),
        ("a b", "extraneous input 'b'", 1, 3),
        ("status == 'FAILED", "token recognition error", 1, 11),
        ("a == 1 &&\n\tb === 2", "token recognition error", 2, 6),
        ("'😀' == == 2", "extraneous input '=='", 1, 8),
        ("x.in == 1", "no viable alternative", 1, 3),
        ("if == 1", "reserved identifier: if", 1, 1),
        ("", "something is missing at its end", 1, 1),
        ("true && sise(a) > 1", "there is no function sise; did you mean 'size'?", 1, 9),
        ("a == 1 ||\n b.lowerAscii() == 'x'", "there is no function lowerAscii; known: bytes, contains", 2, 4),
        ("status.matches('(')", "'(' is no regular expression", 1, 16),
        ("1", "its result is not true or false, but of type int; compare it", 1, 1),
        ("'text'", "of type str", 1, 1),
        ("1 + true", "No such overload", 1, 1),
        ("(" * 100 + "a" + ")" * 100, "nested too deep", 1, 97),
        ("a" + " + a" * 1000, "longer than 2000 characters", 1, 1),
    ],
)
def test_a_broken_expression_points_at_the_character(expression: str, reason: str, line: int, column: int) -> None:
    with pytest.raises(FilterError) as caught:
        filters.compile(expression)
    error = caught.value
    assert error.exit_code == 2
    assert (error.line, error.column) == (line, column)
    first, shown, caret = str(error).split("\n")
    assert reason in first
    assert caret == "  " + " " * cell_len(shown[2 : column + 1]) + "^"
    if error.expression == expression and expression:
        assert shown == "  " + expression.split("\n")[line - 1].replace("\t", " ")


@pytest.mark.parametrize("expression", ["status", "attempts", "prediction", "note", "items.map(i, i.price)"])
def test_a_result_that_is_no_truth_value_is_an_error_when_it_shows(expression: str) -> None:
    compiled = filters.compile(expression)
    with pytest.raises(FilterError, match="not true or false"):
        compiled.matches(EVENT)
    assert not compiled.matches({})


def test_a_truth_value_of_the_event_is_a_filter() -> None:
    assert matches("truncated", {"truncated": True})
    assert not matches("truncated", {"truncated": False})


@pytest.mark.parametrize("name", sorted(filters._FUNCTIONS))
def test_every_function_that_we_call_known_exists(name: str) -> None:
    import cel

    values = ["'a'", "'1s'", "1", "timestamp('2026-01-01T00:00:00Z')", "b'a'"]
    calls = [f"{name}({v})" for v in values] + [f"{v}.{name}('a')" for v in values] + [f"{v}.{name}()" for v in values]
    assert any(_works(cel, call) for call in calls)


def _works(cel: ModuleType, call: str) -> bool:
    try:
        cel.evaluate(call)
    except (RuntimeError, TypeError, ValueError):
        return False
    return True


def test_one_filter_serves_many_threads() -> None:
    compiled = filters.compile("n % 2 == 0 && text.startsWith('n')")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: compiled.matches({"n": n, "text": f"n{n}"}), range(4000)))
    assert found == [n % 2 == 0 for n in range(4000)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab-", max_size=2), inner, max_size=3),
    max_leaves=10,
)


@given(payload=st.dictionaries(st.sampled_from(["a", "b", "payload", "-"]), JSON))
def test_no_event_raises(payload: dict[str, Any]) -> None:
    for expression in ("a > 1 || b.a == 'x'", "a + b == b", "payload.a in payload.b", "size(a) > b.a && !b.b"):
        assert matches(expression, payload) in {True, False}


def test_importing_filters_does_not_load_the_evaluator() -> None:
    code = "import sys, infertool.filters.expression; sys.exit('cel' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=60).returncode == 0
