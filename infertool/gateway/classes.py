"""The classes of requests: their weights, the wait that each one allows, their priority on the broker."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infertool.errors import SettingsError, UsageError
from infertool.settings.tree import GatewaySettings
from infertool.text.input import did_you_mean, parse_duration

_KEY = "gateway.classes"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FIELDS = ("weight", "budget", "priority")
_HIGHEST_PRIORITY = 9
_WEIGHTS = (0.001, 1000.0)
_MOST = 32
"""Classes at most: each pop looks at the head of each class."""

NO_BUDGET_S = math.inf


@dataclass(frozen=True, slots=True)
class Class:
    """A class of requests.

    Under saturation a class gets `weight` of the sum of the weights of the classes that have requests waiting.
    A request whose predicted wait is longer than `budget_s` is refused. `priority` is that of its messages.
    """

    name: str
    weight: float
    budget_s: float
    priority: int


DEFAULTS = (Class("interactive", 8, 5, 8), Class("standard", 3, 60, 4), Class("batch", 1, 600, 1))
"""The classes of a gateway whose settings name none."""


def parse(settings: GatewaySettings) -> dict[str, Class]:
    """Return the classes by name, in the order of the settings. Raises `SettingsError`."""
    found = {each.name: each for each in DEFAULTS}
    if settings.classes:
        found = {name: _class(name, fields) for name, fields in settings.classes.items()}
    if len(found) > _MOST:
        raise SettingsError(f"{_KEY} has {len(found)} classes, but {_MOST} is the most", key=_KEY)
    for each in found.values():
        _check_budget(each, settings.dispatch_ahead_s)
    if (default := settings.default_class) not in found:
        raise SettingsError(
            f"gateway.default_class is {default!r}, but the classes are {', '.join(found)}",
            key="gateway.default_class",
            advice=did_you_mean(default, found),
        )
    return found


def _class(name: str, fields: Any) -> Class:
    where = f"{_KEY}.{name}"
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{_KEY}: {name[:80]!r} cannot name a class", key=_KEY, advice="use letters, digits, '.', '_' and '-'"
        )
    if not isinstance(fields, Mapping):
        raise SettingsError(f"{where} is no table", key=where, advice='write {weight = 8, budget = "5s", priority = 8}')
    for field in fields:
        if field not in _FIELDS:
            known = ", ".join(_FIELDS)
            raise SettingsError(
                f"{where} has no {field!r}, but {known}", key=where, advice=did_you_mean(field, _FIELDS)
            )
    return Class(
        name,
        _weight(fields.get("weight", 1), where),
        _budget(fields.get("budget", ""), where),
        _priority(fields.get("priority", 4), where),
    )


def _check_budget(class_: Class, ahead_s: float) -> None:
    """Raise `SettingsError` for a class that would never be served under load: the broker's work is ahead of it."""
    if class_.budget_s > ahead_s:
        return
    raise SettingsError(
        f"{_KEY}.{class_.name}.budget is {class_.budget_s:g} s, but the broker has work for {ahead_s:g} s "
        "(gateway.dispatch_ahead_s): all would be refused under load",
        key=f"{_KEY}.{class_.name}",
        advice="set a longer budget, or a shorter gateway.dispatch_ahead_s",
    )


def _weight(value: Any, where: str) -> float:
    least, most = _WEIGHTS
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise SettingsError(f"{where}.weight is {value!r}, but must be from {least:g} to {most:g}", key=where)
    return float(value)


def _budget(value: Any, where: str) -> float:
    """Return the seconds of a duration, or of a number; nothing means that every wait is allowed."""
    if value == "":
        return NO_BUDGET_S
    try:
        seconds = parse_duration(value) if isinstance(value, str) else float(value)
    except (UsageError, TypeError, ValueError, OverflowError) as error:
        raise SettingsError(f"{where}.budget cannot be used: {error}", key=where) from None
    if isinstance(value, bool) or not math.isfinite(seconds) or seconds <= 0:
        raise SettingsError(f"{where}.budget is {value!r}, but must be more than 0 seconds", key=where)
    return seconds


def _priority(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _HIGHEST_PRIORITY:
        raise SettingsError(f"{where}.priority is {value!r}, but must be from 0 to {_HIGHEST_PRIORITY}", key=where)
    return value
