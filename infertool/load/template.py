"""A document whose fields are filled anew for each event; what stays the same is encoded once."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from infertool import json_place
from infertool.errors import UsageError
from infertool.load import functions
from infertool.load.functions import Fill

_STEP: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_PATH: Final = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[\d+\])*")


@dataclass(frozen=True, slots=True)
class Assignment:
    """`path=value`: where to put what. `fill` makes the value."""

    path: str
    fill: Fill

    def steps(self) -> list[str | int]:
        """Return the path as keys and indexes."""
        return [int(index) if index else key for key, index in _STEP.findall(self.path)]


def assignment(text: str, rng: random.Random) -> Assignment:
    """Return what `--set` says. The value is a function's call or JSON, else a string. Raises UsageError."""
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not _PATH.fullmatch(path):
        raise UsageError(f"--set {text!r} is no assignment", advice="write for example 'features[0]=normal(0,1)'")
    try:
        fill = functions.parse(value, rng)
    except UsageError as error:
        raise UsageError(f"--set {path}: {error.what}", advice=error.advice) from None
    if fill is None:
        constant = functions.json_of(value)
        return Assignment(path, lambda _number: constant)
    return Assignment(path, fill)


class Template:
    """A document (JSON) with `assignments` made. Raises UsageError when one does not fit the document."""

    def __init__(self, document: bytes, assignments: Sequence[Assignment]) -> None:
        mark = secrets.token_hex(8)
        for index, assigned in enumerate(assignments):
            document = _put(document, assigned, f'"{mark}{index}."'.encode())
        # Constant and filled pieces by turns; a later assignment may have replaced an earlier one's place.
        pieces = re.split(rf'"{mark}(\d+)\."'.encode(), document)
        self._constant = pieces[0::2]
        self._fills = [assignments[int(index)].fill for index in pieces[1::2]]

    def body(self, number: int) -> bytes:
        """Return the document for event `number`, as JSON."""
        parts = [self._constant[0]]
        for fill, constant in zip(self._fills, self._constant[1:], strict=True):
            parts += (fill(number), constant)
        return b"".join(parts)


def _put(document: bytes, assigned: Assignment, mark: bytes) -> bytes:
    try:
        return json_place.put(document, assigned.steps(), mark)
    except json_place.NoPlaceError as fault:
        where = f"--set {assigned.path}"
        if fault.kind == "a list" and isinstance(fault.step, int):
            advice = f"the list has {fault.size} elements"
            raise UsageError(f"{where}: there is no element {fault.step}", advice=advice) from None
        what = f"{where}: what {fault.step!r} is looked for in is {fault.kind}"
        raise UsageError(what, advice="look at the payload") from None
