"""Rules as they are written: fields, kinds, errors that point at the character, and overrides of shipped rules."""

from __future__ import annotations

from typing import Any

import pytest

from infertool.alerts import condition, fields
from infertool.alerts.condition import ConditionError, Measure
from infertool.alerts.rule import Rule, parse_rules
from infertool.alerts.shipped import SHIPPED
from infertool.errors import SettingsError


def rules(*tables: dict[str, Any]) -> dict[str, Rule]:
    return {rule.name: rule for rule in parse_rules(tables, SHIPPED, "my.toml")}


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("queue.dept > 1", 1, "there is no field queue.dept; did you mean 'queue.depth'?"),
        ("rate.settled > 1.0 && queue > 1", 23, "queue is a group of fields; it has queue.name, queue.depth"),
        ("queue.depth > 'a'", 13, "a whole number > text: these cannot be compared"),
        ("queue.depth + 1", 13, "its result is not true or false, but a whole number"),
        ("rate.settled * 2 > 1.0", 14, "CEL does not mix the two; convert one with double(...), or write 2.0 for 2"),
        ("!queue.depth", 2, "! takes true or false, not a whole number"),
        ("progress.stuck && queue.depth", 19, "&& takes true or false, not a whole number"),
        ("queue.depth == null || rate.settled == null", 37, "only a field that may be unknown"),
        ("model.circuit in ['open', 3]", 27, "a whole number is never text"),
        ("model.circuit in queue.name", 18, "behind `in` stands a list"),
        ("alerts.exists(a, a == 1)", 8, "rules have no loops, so no exists"),
        ("[1, 2].exists(a, a > queue.depth)", 8, "rules have no loops, so no exists"),
        ("queue['depth'] > 1", 6, "rules have no index"),
        ("1 > 2", 1, "it reads no field"),
        ("queue.depth >", 14, "something is missing at its end"),
        ("queue.depth > ", 15, "something is missing at its end"),
        ("durat(queue.depth) > 1", 1, "there is no function durat"),
        ("double(progress.stuck) > 1.0", 8, "double takes a number with a point or a whole number or text"),
        ("queue.name.matches('(') ", 20, "is no regular expression"),
        ("queue.depth > 1 ? progress.stuck : 3", 36, "one side of : is true or false, the other a whole number"),
        (" && ".join(["queue.depth / 2 > 1"] * 9), 197, "more than 8 divisions"),
        ("(" * 900 + "progress.stuck" + ")" * 900, None, "nested too deep"),
        ("!" * 1900 + "progress.stuck", None, ""),
    ],
)  # fmt: skip
def test_an_error_points_at_the_character(text: str, column: int | None, words: str) -> None:
    with pytest.raises(ConditionError) as caught:
        condition.compile(text, "`when` of the alert rule X")
    assert words in str(caught.value)
    assert str(caught.value).startswith("`when` of the alert rule X cannot work: ")
    if column is not None:
        assert caught.value.column == column


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("queue.depth > 1000", {"queue.depth": 1001}, True),
        ("queue.depth > 1000", {"queue.depth": None}, None),
        ("queue.depth > 1000", {}, None),
        ("rate.settled < 1.5", {"rate.settled": 1}, True),
        ("rate.settled * 2.0 < 1.5", {"rate.settled": 1}, False),
        ("10 / queue.depth > 1", {"queue.depth": 0}, None),
        ("10 % queue.depth > 1", {"queue.depth": 0}, None),
        ("10.0 / rate.settled > 1.0", {"rate.settled": 0.0}, None),
        ("rate.received / rate.settled < 1.0", {"rate.settled": 0.0, "rate.received": 0.0}, None),
        ("rate.settled > 0.0 && 10.0 / rate.settled > 1.0", {"rate.settled": 0.0}, False),
        ("10.0 / (10.0 / rate.settled) > 1.0", {"rate.settled": 5.0}, True),
        ("queue.depth * 9223372036854775807 > 1", {"queue.depth": 9}, None),
        ("queue.depth > 99999999999999", {"queue.depth": 10**30}, True),
        ("connections.phoenix.up != null && connections.phoenix.up == false", {"connections.phoenix.up": None}, False),
        ("connections.phoenix.up != null && connections.phoenix.up == false", {"connections.phoenix.up": False}, True),
        ("counts.failed >= 2", {"counts.failed": 2}, True),
        ("!(model.circuit in ['open', \"half-open\"]) ? progress.stuck : queue.name.startsWith('a')",
         {"model.circuit": "open", "progress.stuck": False, "queue.name": "ab"}, True),
        ("-queue.depth < -3 && size(queue.name) == 2", {"queue.depth": 4, "queue.name": "ab"}, True),
    ],
)  # fmt: skip
def test_a_condition_holds_or_not_or_has_no_data(text: str, values: dict[str, Any], expected: bool | None) -> None:
    assert condition.compile(text).holds(values) is expected


def test_the_measure_is_that_of_the_comparison_that_holds() -> None:
    burn = condition.compile("(errors.ratio_5m > 0.144 && 100 <= errors.events_1h) || errors.ratio_6h > 0.06")
    values = {"errors.ratio_5m": 0.1, "errors.events_1h": 3, "errors.ratio_6h": 0.07}
    assert burn.measure(values) == Measure(0.07, 0.06)
    assert burn.measure({**values, "errors.ratio_6h": 0}) == Measure(0.1, 0.144)
    assert condition.compile("progress.stuck").measure({"progress.stuck": True}) is None


def test_shipped_rules_read_known_fields_and_are_overridden_by_key() -> None:
    shipped = rules()
    assert len(shipped) == len(SHIPPED) == 14
    assert {name for name, rule in shipped.items() if rule.inhibited_by} == {"Backlog", "NoProgress"}
    mine = rules({"name": "Backlog", "when": "queue.depth > 5"}, {"name": "Mine", "when": "dlq.depth > 0", "for": "1m"})
    assert mine["Backlog"].when.text == "queue.depth > 5"
    assert mine["Backlog"].for_s == shipped["Backlog"].for_s == 120.0
    assert mine["Mine"].for_s == 60.0
    assert list(mine) == [*shipped, "Mine"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"when": "queue.depth > 1"}, "my.toml: table 1 of [[alerts]] has no name"),
        ({"name": "a\nb", "when": "queue.depth > 1"}, "has a name that is no word"),
        ({"name": "Backlogg"}, "alert rule Backlogg: it has no `when`"),
        ({"name": "Backlog", "fro": "1m"}, "alert rule Backlog: there is no key fro; did you mean 'for'?"),
        ({"name": "Backlog", "for": 60}, "for must be text"),
        ({"name": "Backlog", "for": "1 minute"}, "'1 minute' is not a duration"),
        ({"name": "Backlog", "sinks": ["webhok"]}, "there is no sink webhok; did you mean 'webhook'?"),
        ({"name": "Backlog", "sinks": [1]}, "sinks must be a list of texts"),
        ({"name": "Backlog", "severity": "a b"}, "severity must be a word"),
        ({"name": "Backlog", "inhibited_by": ["ConectionDown"]}, "there is no rule ConectionDown; did you mean"),
        ({"name": "Backlog", "clear": "queue.dept < 5"}, "my.toml: `clear` of the alert rule Backlog cannot work"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_named(table: dict[str, Any], words: str) -> None:
    with pytest.raises((SettingsError, ConditionError)) as caught:
        rules(table)
    assert words in str(caught.value)


def test_values_of_a_document_and_of_its_json_are_the_same() -> None:
    from dataclasses import asdict

    from tests.alerts.support import document

    given = document()
    assert fields.flat(given) == fields.flat_json(asdict(given))
    assert set(fields.flat(given)) <= set(fields.known())
    assert fields.known()["errors.ratio_5m"] == fields.Field("double", optional=True)
    assert fields.flat_json({"queue": {"depth": [1]}, "junk": 1}) == {}
