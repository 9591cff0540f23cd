"""From events to tensors and back: each input is found by its path, measured, and checked against what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from infertool.errors import InferenceError
from infertool.models.port import Payload

Kind = Literal["float", "int", "bool", "text"]
Shape = tuple[int | None, ...]

_TYPES: Mapping[Kind, frozenset[type]] = {
    "float": frozenset({float, int}),
    "int": frozenset({int}),
    "bool": frozenset({bool}),
    "text": frozenset({str}),
}
_MEANING: Mapping[Kind, str] = {"float": "numbers", "int": "whole numbers", "bool": "truth values", "text": "texts"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value of one event: its shape, and its elements in row-major order."""

    shape: tuple[int, ...]
    elements: list[Any]


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a model. `shape` is that of one event's value; None in it stands for any size."""

    name: str
    path: tuple[str, ...]
    kind: Kind
    shape: Shape

    def read(self, payload: Payload) -> Tensor:
        """Return the event's value. Raises an `InferenceError` that names input and shape."""
        value: Any = payload
        for key in self.path:
            if not isinstance(value, dict) or key not in value:
                raise self._wrong(f"the event has no {'.'.join(self.path)!r}")
            value = value[key]
        tensor = self._measured(value)
        if not _TYPES[self.kind].issuperset(map(type, tensor.elements)):
            raise self._wrong(f"takes {_MEANING[self.kind]}, and the event has something else in {shown(tensor.shape)}")
        if tensor.shape == self.shape or _fits(tensor.shape, self.shape):
            return tensor
        if len(tensor.elements) == 1 and all(size in {1, None} for size in self.shape):
            return Tensor((1,) * len(self.shape), tensor.elements)
        raise self._wrong(f"takes shape {shown(self.shape)}, the event has {shown(tensor.shape)}")

    def _measured(self, value: Any) -> Tensor:
        sizes: list[int] = []
        level = [value]
        while level and type(level[0]) is list:
            size = len(level[0])
            if any(type(each) is not list or len(each) != size for each in level):
                raise self._wrong(f"the event's lists are of different lengths below {shown(tuple(sizes))}")
            sizes.append(size)
            level = [element for each in level for element in each]
        return Tensor(tuple(sizes), level)

    def _wrong(self, what: str) -> InferenceError:
        return InferenceError(f"input {self.name!r}: {what}", retryable=False)


Row = list[Tensor]
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs of a model; whether their first axis counts events, and whether it may count more than one."""

    inputs: tuple[Input, ...]
    batch_axis: bool
    takes_batches: bool

    def result(self, payload: Payload, ask: Callable[[list[Row]], list[Result]]) -> Result:
        """Return what `ask` makes of one event's tensors. Raises `InferenceError`."""
        return ask([[each.read(payload) for each in self.inputs]])[0]

    def results(
        self, payloads: Sequence[Payload], ask: Callable[[list[Row]], list[Result]]
    ) -> list[Result | InferenceError]:
        """Return what `ask` makes of the events' tensors; an event that does not fit gets its error in its place.

        All are asked for at once, if the model takes batches and the sizes that it leaves open are the same in each.
        """
        rows = [self._row(payload) for payload in payloads]
        fit = [row for row in rows if not isinstance(row, InferenceError)]
        shapes = {tuple(tensor.shape for tensor in row) for row in fit}
        if self.takes_batches and len(shapes) == 1:
            answers: Iterator[Result | InferenceError] = iter(ask(fit))
        else:
            answers = (_alone(row, ask) for row in fit)
        return [row if isinstance(row, InferenceError) else next(answers) for row in rows]

    def _row(self, payload: Payload) -> Row | InferenceError:
        try:
            return [each.read(payload) for each in self.inputs]
        except InferenceError as error:
            return error


def _alone(row: Row, ask: Callable[[list[Row]], list[Result]]) -> Result | InferenceError:
    try:
        return ask([row])[0]
    except InferenceError as error:
        return error


def signature(inputs: Sequence[tuple[str, tuple[str, ...], Kind, Shape]]) -> Signature:
    """Return the signature of inputs given as name, path, kind and whole shape, the batch axis included.

    The first axis counts events if every input has one of size 1 or any size.
    """
    batch_axis = all(shape and shape[0] in {1, None} for *_, shape in inputs)
    read = tuple(Input(name, path, kind, shape[1:] if batch_axis else shape) for name, path, kind, shape in inputs)
    return Signature(read, batch_axis, batch_axis and all(shape[0] is None for *_, shape in inputs))


def shown(shape: Shape) -> str:
    """Return a shape for people, `?` for any size."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def flat(elements: list[Any]) -> list[Any]:
    """Return nested lists as one list, in row-major order."""
    while elements and isinstance(elements[0], list):
        elements = [element for each in elements for element in each]
    return elements


def nested(elements: list[Any], shape: Sequence[int]) -> Any:
    """Return elements in row-major order as nested lists; a single one bare."""
    if len(elements) == 1:
        return elements[0]
    for size in reversed(shape[1:]):
        elements = [elements[start : start + size] for start in range(0, len(elements), size)]
    return elements


def _fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(w in {None, s} for s, w in zip(shape, wanted, strict=True))
