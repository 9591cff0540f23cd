"""Changing the payload of a dead letter before it is replayed: `--set path=value`, `--edit script.py:function`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, Final

from infertool import codec
from infertool.deadletters import bodies
from infertool.deadletters.letters import DeadLetter
from infertool.errors import ModelLoadError, UsageError
from infertool.hangup import stderr
from infertool.models import loader
from infertool.models.user_code import end_if_forked, kept, text_of, type_of
from infertool.text import json_text

# Characters.
_LONGEST_REASON: Final = 500
# Takes a payload as JSON, and returns one.
Change = Callable[[bytes], bytes]


class EditError(Exception):
    """This letter cannot be edited; it stays where it is. The text says why."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Changes in the order they were given. What they do not touch keeps its text, as far as a script lets it."""

    changes: tuple[Change, ...]

    def body(self, letter: DeadLetter) -> bytes:
        """Return the letter's new body. Raises `EditError`."""
        message = letter.message
        if bodies.is_msgpack(message):
            raise EditError("its body is MessagePack, which cannot be edited")
        text = bodies.as_json(message)
        if not json_text.is_json(text):
            raise EditError("its body is not JSON, so it cannot be edited")
        for change in self.changes:
            text = change(text)
        return codec.packed(text, message.coding[1] or "") if bodies.is_packed(message) else text


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
    value = json_text.from_user_input(given)

    def assign(payload: bytes) -> bytes:
        try:
            return json_text.put(payload, keys, value)
        except json_text.NoPlaceError as fault:
            what = f"element {fault.step}" if fault.kind == "a list" else "object or list on the way"
            raise EditError(f"--set {path}: there is no {what}") from None

    return assign


def _script(spec: str) -> Change:
    # What it prints would be taken for the summary.
    try:
        with kept(), redirect_stdout(stderr()):
            function = loader.find(spec).thing
    except ModelLoadError as fault:
        what = fault.what.removeprefix("model ")
        raise ModelLoadError(f"--edit {what}", spec=spec, advice=fault.advice) from fault
    if not callable(function):
        raise UsageError(f"--edit {spec!r} names no function", advice="write for example fix.py:fix")

    def run(payload: bytes) -> bytes:
        value = _read(payload)
        with _guarded("--edit raised"), redirect_stdout(stderr()):
            edited = function(value)
        if edited is None:
            raise EditError("--edit returned nothing; it must return the payload")
        with _guarded("its edited payload is not JSON:"):
            return json_text.dumps(edited)

    return run


@contextmanager
def _guarded(what: str) -> Iterator[None]:
    """Raise `EditError` for whatever the user's code raises, also `SystemExit`: its letter stays, the others do not."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as fault:
        end_if_forked()
        raise EditError(f"{what} {type_of(fault)}: {text_of(fault)}"[:_LONGEST_REASON]) from fault
    end_if_forked()


def _read(payload: bytes) -> Any:
    try:
        return json_text.loads_written(payload)
    except json_text.JsonError as fault:
        raise EditError(f"its payload cannot be given to --edit: {fault}") from None
