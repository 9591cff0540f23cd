"""Changing the payload of a dead letter before it is replayed: `--set path=value`, `--edit script.py:function`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from infertool.deadletter.letter import DeadLetter
from infertool.errors import UsageError
from infertool.models import sources

Change = Callable[[Any], Any]


class EditError(Exception):
    """This letter cannot be edited; it stays where it is. The text says why."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Changes in the order they were given: each takes a payload and returns one."""

    changes: tuple[Change, ...]

    def body(self, letter: DeadLetter) -> bytes:
        """Return the letter's new body. Raises `EditError`."""
        payload = letter.payload()
        if payload is None:
            raise EditError("its body is not JSON, so it cannot be edited")
        payload = copy.deepcopy(payload)  # --where may look at the letter again
        for change in self.changes:
            payload = change(payload)
        try:
            return orjson.dumps(payload)
        except orjson.JSONEncodeError as fault:
            raise EditError(f"its edited payload is not JSON: {fault}") from None


def parse(assignments: Sequence[str], script: str | None) -> Edit | None:
    """Return the edit that `--set` (each `path=value`) and `--edit` describe, None when they ask for nothing.

    Raises `UsageError`, and `ModelLoadError` for a script that cannot be loaded.
    """
    changes = [_assignment(text) for text in assignments]
    if script is not None:
        changes.append(_script(script))
    return Edit(tuple(changes)) if changes else None


def _assignment(text: str) -> Change:
    """Return `a.b=value` as a change. The value is JSON; what is not JSON is a string."""
    path, equals, given = text.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise UsageError(f"--set {text!r} is no assignment", advice="write for example customer.tier=gold")
    try:
        value = orjson.loads(given)
    except orjson.JSONDecodeError:
        value = given

    def assign(payload: Any) -> Any:
        place = payload
        for key in keys[:-1]:
            place = _inside(place, key, path)
        _put(place, keys[-1], value, path)
        return payload

    return assign


def _inside(place: Any, key: str, path: str) -> Any:
    if isinstance(place, dict):
        return place.setdefault(key, {})
    return _list(place, path)[_index(place, key, path)]


def _put(place: Any, key: str, value: Any, path: str) -> None:
    if isinstance(place, dict):
        place[key] = copy.deepcopy(value)
    else:
        _list(place, path)[_index(place, key, path)] = copy.deepcopy(value)


def _list(place: Any, path: str) -> list[Any]:
    if isinstance(place, list):
        return place
    raise EditError(f"--set {path}: there is no object or list on the way")


def _index(place: list[Any], key: str, path: str) -> int:
    if isinstance(place, list) and key.isascii() and key.isdigit() and int(key) < len(place):
        return int(key)
    raise EditError(f"--set {path}: there is no element {key}")


def _script(spec: str) -> Change:
    function = sources.find(spec).thing
    if not callable(function):
        raise UsageError(f"--edit {spec!r} names no function", advice="write for example fix.py:fix")

    def run(payload: Any) -> Any:
        try:
            edited = function(payload)
        except Exception as fault:  # the user's code; its letter stays
            raise EditError(f"--edit raised {type(fault).__name__}: {fault}") from fault
        if edited is None:
            raise EditError("--edit returned nothing; it must return the payload")
        return edited

    return run
