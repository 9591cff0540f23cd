"""Bodies of events: the built-in event or documents of a file, with filled fields, padding, and broken bodies."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import orjson

from infertool.errors import UsageError
from infertool.load import template
from infertool.load.template import Assignment, Template, assignment
from infertool.message import BodyKind
from infertool.text import json_text

_FEATURES: Final = 8
# Number of feature vectors drawn in advance: drawing eight numbers for each event would take half of its time.
_VECTORS: Final = 1024
_SOURCES: Final = (b'"checkout"', b'"search"', b'"mobile"', b'"partner-api"')
DOCUMENT: Final = orjson.dumps({
    "request_id": "",
    "source": "",
    "features": [0.0] * _FEATURES,
    "context": {"tenant": "acme", "region": "eu-central-1", "model_hint": "reference"},
    "text": "The parcel was delivered to the wrong address, and nobody answered the phone "
    "when I called to ask why it was not the one on the label.",
})  # fmt: skip
Size = Callable[[int], int]
_LARGEST: Final = 100 * 1024 * 1024
_HEAD, _TAIL = b'"padding":"', b'"}'
# Each breaks a valid body in its way: cut short, not JSON, not UTF-8, not an object, empty.
_BREAKERS: Final[tuple[Callable[[bytes], bytes], ...]] = (
    lambda body: body[: max(1, len(body) // 2)],
    lambda _body: b"<event>not JSON</event>",
    lambda body: b'{"text":"\xff\xfe",' + body[1:],
    lambda body: b"[%b]" % body,
    lambda _body: b"",
)
STDIN: Final = "-"


def request_id(number: int) -> str:
    """Return the request id of event `number`."""
    return f"req-{number:06d}"


def built_in_fields(rng: random.Random, *, single_features: bool) -> list[Assignment]:
    """Return the assignments of the built-in event. With `single_features` each feature is assigned separately."""
    return [
        Assignment("request_id", lambda number: b'"req-%06d"' % number),
        Assignment("source", lambda _number: rng.choice(_SOURCES)),
        *(_single_features(rng) if single_features else [_features(rng)]),
    ]


def _single_features(rng: random.Random) -> list[Assignment]:
    return [Assignment(f"features[{at}]", lambda _number: b"%.6f" % rng.gauss(0, 1)) for at in range(_FEATURES)]


def _features(rng: random.Random) -> Assignment:
    vectors = [orjson.dumps([round(rng.gauss(0, 1), 6) for _ in range(_FEATURES)]) for _ in range(_VECTORS)]
    return Assignment("features", lambda _number: rng.choice(vectors))


def size_function(text: str, rng: random.Random) -> Size:
    """Return a function from an event's number to the size of its body in bytes. Raises UsageError."""
    advice = "write bytes, for example --size 400, or a function: normal(400,100), int(100,1000), choice(200,2000)"
    try:
        fill = template.parse_function(text, rng)
        size = float(text if fill is None else fill(0))
        _check_numbers(text.partition("(")[2].strip().removesuffix(")"))
    except (UsageError, ValueError) as error:
        what = error.what if isinstance(error, UsageError) else "is no size"
        raise UsageError(f"--size {text!r}: {what}", advice=advice) from None
    if fill is not None:
        return lambda number: int(max(0.0, min(float(fill(number)), _LARGEST)))
    if not 0 < size <= _LARGEST:
        raise UsageError(f"--size {text!r} is out of range", advice=f"a body has 1 to {_LARGEST} bytes")
    return lambda _number: int(size)


def _check_numbers(arguments: str) -> None:
    """Raise ValueError unless all arguments of a function are numbers: `choice` gives what it is given."""
    for argument in arguments.split(",") if arguments.strip() else []:
        if type(orjson.loads(argument)) not in {int, float}:
            raise ValueError(argument)


def padded(body: bytes, size: int) -> bytes:
    """Return the JSON object `body`, padded to `size` bytes with a field `padding`; unchanged if it is as large."""
    joint = b"" if body == b"{}" else b","
    missing = size - len(body) - len(joint) - len(_HEAD) - 1
    if missing < 0:
        return body
    return b"".join((body[:-1], joint, _HEAD, b"x" * missing, _TAIL))


class Breaker:
    """Breaks a share of the bodies. `rng` chooses which, and how."""

    def __init__(self, rate: float, rng: random.Random) -> None:
        self._rate = rate
        self._rng = rng

    def __call__(self, body: bytes) -> bytes | None:
        """Return a broken body in place of `body`, or None if the event stays valid."""
        if self._rng.random() >= self._rate:
            return None
        return self._rng.choice(_BREAKERS)(body)


def check_poison_rate(rate: float) -> None:
    """Raise UsageError for a share outside 0 to 1."""
    if not 0 <= rate <= 1:
        raise UsageError(f"--poison-rate {rate:g} is no share", advice="write a number from 0 to 1, for example 0.01")


class Order(StrEnum):
    """The order of several documents: each in turn, or one at random."""

    TURN = "turn"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class PayloadOptions:
    """The options of bodies. `documents` (JSON) come from `read`; without any, the built-in event is sent."""

    documents: tuple[bytes, ...] = ()
    order: Order = Order.TURN
    assignments: tuple[str, ...] = ()
    size: str | None = None
    poison_rate: float = 0.0
    kind: BodyKind = BodyKind.TEXT


class Payloads:
    """Makes bodies; the same seed makes the same ones. Raises UsageError for invalid options."""

    def __init__(self, options: PayloadOptions, seed: str) -> None:
        check_poison_rate(options.poison_rate)
        self._rng = random.Random(f"payloads {seed}")  # noqa: S311  # sample data
        filled = [assignment(text, self._rng) for text in options.assignments]
        if options.documents:
            self._templates = [Template(document, filled) for document in options.documents]
        else:
            single = any(assigned.path.startswith("features[") for assigned in filled)
            standard = built_in_fields(self._rng, single_features=single)
            self._templates = [Template(DOCUMENT, [*standard, *filled])]
        self._order = options.order
        self._size = None if options.size is None else size_function(options.size, self._rng)
        self._breaker = Breaker(options.poison_rate, self._rng) if options.poison_rate else None
        if self._size and not all(document.startswith(b"{") for document in options.documents):
            raise UsageError("--size needs JSON objects", advice="it pads them with a field; other JSON has none")

    def make(self, number: int) -> tuple[bytes, bool]:
        """Return the body of event `number`, and True if it is a broken one."""
        body = self._template(number).body(number)
        if self._size:
            body = padded(body, self._size(number))
        if self._breaker and (broken := self._breaker(body)) is not None:
            return broken, True
        return body, False

    def _template(self, number: int) -> Template:
        if self._order is Order.RANDOM:
            return self._rng.choice(self._templates)
        return self._templates[number % len(self._templates)]


def read(source: str) -> tuple[bytes, ...]:
    """Return the documents of a file, or of standard input for `-`: JSON, or JSON lines. Raises UsageError.

    They are made compact; numbers stay as they are written.
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
    json_text.loads_nearest(text)  # raises with the place of the fault
    return json_text.compact(text)


def _lines(data: bytes, name: str, whole: json_text.JsonError) -> tuple[bytes, ...]:
    documents: list[bytes] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            documents.append(_document(line))
        except json_text.JsonError as fault:
            # Either one document over several lines, or several lines of which this one is broken.
            why = f"line {number}: {fault}" if documents else str(whole)
            raise UsageError(
                f"--payload {name} is not JSON: {why}", advice="write one document, or one a line"
            ) from None
    return tuple(documents)
