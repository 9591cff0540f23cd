"""Converts events to tensors and outputs to results: reads inputs by path, and checks type and shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from infertool.errors import InferenceError, ModelUnavailableError, SettingsError
from infertool.models.port import Payload
from infertool.secret import mask_url
from infertool.settings.tree import ModelSettings
from infertool.text.input import did_you_mean
from infertool.text.json_text import Written

# Output names of scikit-learn's exports (skl2onnx, with and without a pipeline).
_LABELS = ("label", "output_label")
_PROBABILITIES = ("probabilities", "output_probability")


def as_results(columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Return one result for each event; `columns` holds the outputs by name, one element for each event.

    A label with probabilities, as a map by class or as a list, becomes `{"class": ..., "confidence": ...}`.
    """
    for names in zip(_LABELS, _PROBABILITIES, strict=True):
        if columns.keys() == set(names):
            pairs = zip(*(columns[name] for name in names), strict=True)
            return [{"class": label, "confidence": _confidence(label, each)} for label, each in pairs]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _confidence(label: Any, probabilities: Any) -> Any:
    if isinstance(probabilities, dict):
        return probabilities[label]
    return max(probabilities) if isinstance(probabilities, list) else probabilities


class InputSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The setting of one input.

    `datatype` and `shape` (of one event's value) are for a server that does not provide metadata.
    """

    at: str = msgspec.field(name="from", default="")
    datatype: str = ""
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if bool(self.datatype) != (self.shape is not None):
            raise ValueError("datatype and shape go together")

    def path(self, name: str) -> tuple[str, ...]:
        """Return the path in an event to the input `name`: the configured one, else the name."""
        return tuple(self.at.split(".")) if self.at else (name,)


def input_settings(inputs: Mapping[str, Any]) -> dict[str, InputSetting]:
    """Return the settings by input. Raises `SettingsError`."""
    return {name: _given(name, value) for name, value in inputs.items()}


def _given(name: str, value: Any) -> InputSetting:
    try:
        return msgspec.convert({"from": value} if isinstance(value, str) else value, InputSetting)
    except msgspec.ValidationError as error:
        advice = 'write "path.to.value", or {from = "path.to.value", datatype = "FP32", shape = [8]}'
        raise SettingsError(f"model.inputs.{name}: {error}", key="model.inputs", advice=advice) from None


def check_input_names(inputs: Iterable[str], known: Iterable[str]) -> None:
    """Raise `SettingsError` for a name that the model does not have."""
    names = list(known)
    for name in inputs:
        if name not in names:
            advice = did_you_mean(name, names) or f"it has: {', '.join(names)}"
            raise SettingsError(f"model.inputs.{name}: the model has no such input", key="model.inputs", advice=advice)


def refuse_inputs(settings: ModelSettings) -> None:
    """Raise `SettingsError` if `model.inputs` is set: the model gets the whole event."""
    if settings.inputs:
        what = f"model.inputs is for ONNX and KServe models, and {mask_url(settings.spec)} gets the whole event"
        raise SettingsError(what, key="model.inputs", advice="leave it out")


Kind = Literal["float", "int", "bool", "text"]
Shape = tuple[int | None, ...]

_TYPES: Mapping[Kind, frozenset[type]] = {
    "float": frozenset({float, int, Written}),
    "int": frozenset({int}),
    "bool": frozenset({bool}),
    "text": frozenset({str}),
}
_MEANING: Mapping[Kind, str] = {"float": "numbers", "int": "whole numbers", "bool": "truth values", "text": "texts"}

# The datatypes of the v2 protocol.
_OF_KIND: Mapping[Kind, Sequence[str]] = {
    "float": ("FP16", "FP32", "FP64", "BF16"),
    "int": ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
    "bool": ("BOOL",),
    "text": ("BYTES",),
}
KINDS: Mapping[str, Kind] = {datatype: kind for kind, datatypes in _OF_KIND.items() for datatype in datatypes}


def wrong_kind(kind: Kind, elements: Iterable[Any]) -> str:
    """Return what an input of this kind takes if an element is something else; empty if all are right."""
    return "" if _TYPES[kind].issuperset(map(type, elements)) else _MEANING[kind]


@dataclass(frozen=True, slots=True)
class Described:
    """An input in the terms of the v2 protocol: its path in an event, its datatype, and its shape with batch axis."""

    name: str
    path: tuple[str, ...]
    datatype: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value of one event: shape, and elements in row-major order."""

    shape: tuple[int, ...]
    elements: list[Any]


class RaggedError(ValueError):
    """Lists on one level are of different lengths, or beside something else. The message is the shape above them."""


def measured(value: Any) -> Tensor:
    """Return a value, or nested lists of values, as a tensor. Raises `RaggedError`."""
    sizes: list[int] = []
    level = [value]
    while level and type(level[0]) is list:
        size = len(level[0])
        if any(type(each) is not list or len(each) != size for each in level):
            raise RaggedError(shown(tuple(sizes)))
        sizes.append(size)
        level = [element for each in level for element in each]
    return Tensor(tuple(sizes), level)


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a model. `shape` is that of one event's value; None means any size."""

    name: str
    path: tuple[str, ...]
    kind: Kind
    shape: Shape

    def read(self, payload: Payload) -> Tensor:
        """Return the event's value for this input. Raises `InferenceError` that names input and shape."""
        value: Any = payload
        for key in self.path:
            if not isinstance(value, dict) or key not in value:
                raise self._wrong(f"the event has no {'.'.join(self.path)!r}")
            value = value[key]
        try:
            tensor = measured(value)
        except RaggedError as error:
            raise self._wrong(f"the event's lists are of different lengths below {error}") from None
        if meant := wrong_kind(self.kind, tensor.elements):
            raise self._wrong(f"takes {meant}, and the event has something else in {shown(tensor.shape)}")
        if tensor.shape == self.shape or _fits(tensor.shape, self.shape):
            return tensor
        if len(tensor.elements) == 1 and all(size in {1, None} for size in self.shape):
            return Tensor((1,) * len(self.shape), tensor.elements)
        raise self._wrong(f"takes shape {shown(self.shape)}, the event has {shown(tensor.shape)}")

    def _wrong(self, what: str) -> InferenceError:
        return InferenceError(f"input {self.name!r}: {what}", retryable=False)


Row = list[Tensor]
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs of a model. `batch_axis`: their first axis counts events. `takes_batches`: it may be more than one."""

    inputs: tuple[Input, ...]
    batch_axis: bool
    takes_batches: bool

    def result(self, payload: Payload, ask: Callable[[list[Row]], list[Result]]) -> Result:
        """Return the result of `ask` for one event's tensors. Raises `InferenceError`."""
        return ask([[each.read(payload) for each in self.inputs]])[0]

    def results(
        self, payloads: Sequence[Payload], ask: Callable[[list[Row]], list[Result]]
    ) -> list[Result | InferenceError]:
        """Return the result of `ask` for each event, or its error if the event does not fit.

        If the model takes batches, one call covers all events of the same shapes.
        """
        results: list[Result | InferenceError] = []
        by_shapes: dict[tuple[tuple[int, ...], ...], list[tuple[int, Row]]] = {}
        for position, payload in enumerate(payloads):
            try:
                row = [each.read(payload) for each in self.inputs]
            except InferenceError as error:
                results.append(error)
                continue
            results.append({})
            by_shapes.setdefault(tuple(tensor.shape for tensor in row), []).append((position, row))
        for group in by_shapes.values():
            rows = [row for _, row in group]
            # A call for all events that fails is for the caller to repeat with each half.
            answers = ask(rows) if self.takes_batches and len(by_shapes) == 1 else self._by_group(rows, ask)
            for (position, _), answer in zip(group, answers, strict=True):
                results[position] = answer
        return results

    def _by_group(self, rows: list[Row], ask: Callable[[list[Row]], list[Result]]) -> list[Result | InferenceError]:
        """Return the result of each of some events that have the same shapes, or its error."""
        if self.takes_batches and len(rows) > 1:
            try:
                return [*ask(rows)]
            except ModelUnavailableError as error:
                return [error] * len(rows)
            except InferenceError:
                pass  # some event is the cause
        return [_alone(row, ask) for row in rows]


def _alone(row: Row, ask: Callable[[list[Row]], list[Result]]) -> Result | InferenceError:
    try:
        return ask([row])[0]
    except InferenceError as error:
        return error


def signature(inputs: Sequence[Described]) -> Signature:
    """Return the signature of a model with these inputs.

    The first axis counts events if in every input its size is 1 or any.
    """
    batch_axis = all(each.shape and each.shape[0] in {1, None} for each in inputs)
    read = tuple(
        Input(each.name, each.path, KINDS[each.datatype], each.shape[1:] if batch_axis else each.shape)
        for each in inputs
    )
    return Signature(read, batch_axis, batch_axis and all(each.shape[0] is None for each in inputs))


def sizes(shape: Sequence[int]) -> Shape:
    """Convert a shape of the v2 protocol, in which -1 means any size."""
    return tuple(None if size < 0 else size for size in shape)


def shown(shape: Shape) -> str:
    """Return a shape as text, with `?` for any size."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def nested(elements: list[Any], shape: Sequence[int]) -> Any:
    """Return elements in row-major order as nested lists; a single element unnested."""
    if len(elements) == 1:
        return elements[0]
    for size in reversed(shape[1:]):
        elements = [elements[start : start + size] for start in range(0, len(elements), size)]
    return elements


def _fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(w in {None, s} for s, w in zip(shape, wanted, strict=True))
