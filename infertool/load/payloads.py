"""What is sent: the built-in event, or documents from a file, with fields filled, sizes and broken ones."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from infertool import json_text
from infertool.errors import UsageError
from infertool.load import builtin, poison, sizes
from infertool.load.template import Template, assignment
from infertool.message import BodyKind

STDIN: Final = "-"


class Order(StrEnum):
    """Which of several documents is next: each in turn, or one at random."""

    TURN = "turn"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class PayloadOptions:
    """What the options say of payloads. `documents` (JSON) come from `read`; empty means the built-in event."""

    documents: tuple[bytes, ...] = ()
    order: Order = Order.TURN
    assignments: tuple[str, ...] = ()
    size: str | None = None
    poison_rate: float = 0.0
    kind: BodyKind = BodyKind.TEXT


class Payloads:
    """Makes bodies. One seed makes the same ones. Raises UsageError for options that cannot work."""

    def __init__(self, options: PayloadOptions, seed: str) -> None:
        poison.check_rate(options.poison_rate)
        self._rng = random.Random(f"payloads {seed}")  # noqa: S311  # sample data
        filled = [assignment(text, self._rng) for text in options.assignments]
        if options.documents:
            self._templates = [Template(document, filled) for document in options.documents]
        else:
            single = any(assigned.path.startswith("features[") for assigned in filled)
            fields = builtin.fields(self._rng, single_features=single)
            self._templates = [Template(builtin.DOCUMENT, [*fields, *filled])]
        self._order = options.order
        self._size = None if options.size is None else sizes.parse(options.size, self._rng)
        self._poison = poison.Poison(options.poison_rate, self._rng) if options.poison_rate else None
        if self._size and not all(document.startswith(b"{") for document in options.documents):
            raise UsageError("--size needs JSON objects", advice="it pads them with a field; other JSON has none")

    def make(self, number: int) -> tuple[bytes, bool]:
        """Return the body of event `number`, and whether it is a broken one."""
        body = self._template(number).body(number)
        if self._size:
            body = sizes.padded(body, self._size(number))
        if self._poison and (broken := self._poison(body)) is not None:
            return broken, True
        return body, False

    def _template(self, number: int) -> Template:
        if self._order is Order.RANDOM:
            return self._rng.choice(self._templates)
        return self._templates[number % len(self._templates)]


def read(source: str) -> tuple[bytes, ...]:
    """Return the documents of a file, or of standard input for `-`: JSON, or JSON lines. Raises UsageError.

    They are compact JSON, with each number as it is written.
    """
    name = "standard input" if source == STDIN else source
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except OSError as fault:
        raise UsageError(f"--payload {name} cannot be read: {fault.strerror}") from None
    if not data.strip():
        raise UsageError(f"--payload {name} is empty", advice="it needs a JSON document, or one a line")
    try:
        return (_document(data),)
    except json_text.JsonError as fault:
        return _lines(data, name, fault)


def _document(text: bytes) -> bytes:
    json_text.loads_nearest(text)  # says where it is broken
    return json_text.compact(text)


def _lines(data: bytes, name: str, whole: json_text.JsonError) -> tuple[bytes, ...]:
    documents: list[bytes] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            documents.append(_document(line))
        except json_text.JsonError as fault:
            # Either one document over several lines, or lines of which one is broken.
            why = f"line {number}: {fault}" if documents else str(whole)
            raise UsageError(
                f"--payload {name} is not JSON: {why}", advice="write one document, or one a line"
            ) from None
    return tuple(documents)
