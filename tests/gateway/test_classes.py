"""Classes of requests, from the settings."""

import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from infertool.errors import SettingsError
from infertool.gateway import classes
from infertool.gateway.classes import Class
from infertool.settings.tree import GatewaySettings


def test_without_settings_there_are_three_classes() -> None:
    found = classes.parse(GatewaySettings())
    assert [(each.name, each.weight, each.priority) for each in found.values()] == [
        ("interactive", 8, 8),
        ("standard", 3, 4),
        ("batch", 1, 1),
    ]
    # The broker holds work of dispatch_ahead_s before any class: a shorter budget would refuse everything under load.
    assert all(each.budget_s > GatewaySettings().dispatch_ahead_s for each in found.values())


def test_names_weights_budgets_and_priorities_are_free() -> None:
    table = {"vip": {"weight": 2.5, "budget": "500ms", "priority": 9}, "rest": {"budget": 30}, "any": {}}
    found = classes.parse(GatewaySettings(classes=table, default_class="rest", dispatch_ahead_s=0.4))
    assert list(found.values()) == [Class("vip", 2.5, 0.5, 9), Class("rest", 1, 30, 4), Class("any", 1, math.inf, 4)]


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("bad name", {}, "cannot name a class"),
        ("", {}, "cannot name a class"),
        ("x" * 65, {}, "cannot name a class"),
        ("a\r\nX-Evil: 1", {}, "cannot name a class"),
        ("a", 8, "is no table"),
        ("a", {"wieght": 8}, "wieght"),
        ("a", {"weight": 0}, "weight"),
        ("a", {"weight": -1}, "weight"),
        ("a", {"weight": True}, "weight"),
        ("a", {"weight": "8"}, "weight"),
        ("a", {"weight": math.nan}, "weight"),
        ("a", {"weight": math.inf}, "weight"),
        ("a", {"budget": "soon"}, "budget"),
        ("a", {"budget": 0}, "budget"),
        ("a", {"budget": -1}, "budget"),
        ("a", {"budget": math.inf}, "budget"),
        ("a", {"budget": math.nan}, "budget"),
        ("a", {"budget": True}, "budget"),
        ("a", {"budget": []}, "budget"),
        ("a", {"priority": 10}, "priority"),
        ("a", {"priority": 1.5}, "priority"),
        ("a", {"priority": False}, "priority"),
    ],
)
def test_what_is_no_class_is_refused_by_its_key(name: str, fields: Any, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        classes.parse(GatewaySettings(classes={"standard": {}, name: fields}))
    assert told in str(caught.value)
    assert caught.value.key.startswith("gateway.classes")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"classes": {"vip": {"budget": "1s"}, "standard": {}}}, "vip"),
        ({"classes": {"vip": {"budget": "2s"}, "standard": {}}}, "vip"),
        ({"dispatch_ahead_s": 6.0}, "interactive"),
    ],
)
def test_a_budget_that_the_work_at_the_broker_uses_up_is_refused(given: dict[str, Any], name: str) -> None:
    """Such a class would be refused whenever there is more work than the consumers do."""
    with pytest.raises(SettingsError, match=r"gateway\.dispatch_ahead_s") as caught:
        classes.parse(GatewaySettings(**given))
    assert caught.value.key == f"gateway.classes.{name}"


def test_the_classes_of_the_documentation_can_be_used() -> None:
    text = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
    (line,) = re.findall(r"`(classes = \{.*?\})`", text, re.DOTALL)
    assert classes.parse(GatewaySettings(**tomllib.loads(line), default_class="vip"))["vip"].priority == 9


def test_the_default_class_is_one_of_them_and_a_near_miss_is_told() -> None:
    with pytest.raises(SettingsError, match="interactive") as caught:
        classes.parse(GatewaySettings(default_class="interactiv"))
    assert caught.value.key == "gateway.default_class"


def test_there_are_not_more_classes_than_a_pop_may_look_at() -> None:
    with pytest.raises(SettingsError, match="32"):
        classes.parse(GatewaySettings(classes={f"c{n}": {} for n in range(33)}, default_class="c1"))
