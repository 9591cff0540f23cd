"""Tensors of the v2 protocol (KServe, Triton): elements of inputs, from JSON or raw bytes; outputs, from values."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from infertool.models.tensors import KINDS, Kind, RaggedError, measured, shown, wrong_kind
from infertool.text import json_text

# How `struct` writes an element. BF16 is the upper half of a float; BYTES are texts, each behind its length.
_FORMATS: Final[Mapping[str, str]] = {
    "BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I",
    "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_LENGTH: Final = struct.Struct("<I")
# Bytes that are unpacked at once; a multiple of each element's size.
_PIECE: Final = 1 << 16
# As many as NumPy has. An event holds an axis as a level of lists, and JSON has a limit of levels.
_MOST_AXES: Final = 64
_LEAST_INT, _MOST_INT, _MOST_UINT = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1


class TensorError(ValueError):
    """A tensor that cannot be used. The message says which, and why."""


class Given(msgspec.Struct):
    """An input as it came; `data` is missing where raw bytes behind the JSON hold the elements."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def raw_size(self) -> int | None:
        """The number of raw bytes that hold the elements; None where they are in the JSON. Raises `TensorError`."""
        size = self.parameters.get("binary_data_size")
        if size is not None and (type(size) is not int or size < 0):
            raise TensorError(f"input {self.name!r}: binary_data_size must be a whole number")
        return size


def elements(given: Given, raw: bytes | None) -> list[Any]:
    """Return the elements of an input, in row-major order. Raises `TensorError`."""
    kind = KINDS.get(given.datatype)
    if kind is None:
        raise TensorError(f"input {given.name!r}: the datatype {given.datatype!r} is none of {', '.join(KINDS)}")
    if len(given.shape) > _MOST_AXES:
        raise TensorError(f"input {given.name!r}: the shape has {len(given.shape)} axes; {_MOST_AXES} are the most")
    if any(size < 0 for size in given.shape):
        raise TensorError(f"input {given.name!r}: the shape {given.shape} has a size below 0")
    if raw is not None:
        found = _unpacked(given, raw)
    elif given.data is None:
        raise TensorError(f"input {given.name!r} has no data")
    else:
        found = _flat(given.name, given.data)
    if len(found) != math.prod(given.shape):
        raise TensorError(
            f"input {given.name!r}: the shape {shown(tuple(given.shape))} needs {math.prod(given.shape)} elements, "
            f"there are {len(found)}"
        )
    if raw is None:
        _check(given, kind, found)
    return found


def _check(given: Given, kind: Kind, found: list[Any]) -> None:
    """Raise `TensorError` for elements in JSON that the datatype does not hold; raw bytes hold nothing else."""
    if meant := wrong_kind(kind, found):
        raise TensorError(f"input {given.name!r}: {given.datatype} takes {meant}, and the data has something else")
    if kind == "int" and found:
        try:
            struct.pack(f"<2{_FORMATS[given.datatype]}", min(found), max(found))
        except struct.error:
            raise TensorError(f"input {given.name!r}: a number is out of the range of {given.datatype}") from None


def _flat(name: str, data: list[Any]) -> list[Any]:
    try:
        return measured(data).elements
    except RaggedError as error:
        raise TensorError(f"input {name!r}: the lists of its data are of different lengths below {error}") from None


def _unpacked(given: Given, raw: bytes) -> list[Any]:
    try:
        found = list(_texts(raw)) if given.datatype == "BYTES" else _numbers(given.datatype, raw)
    except (struct.error, UnicodeDecodeError, IndexError):
        raise TensorError(f"input {given.name!r}: {len(raw)} bytes are no elements of {given.datatype}") from None
    if KINDS[given.datatype] == "float" and not all(map(math.isfinite, found)):
        raise TensorError(f"input {given.name!r}: the model gets JSON, which holds no NaN and no infinity")
    return found


def _numbers(datatype: str, raw: bytes) -> list[Any]:
    if datatype == "BF16":
        halves = struct.unpack(f"<{len(raw) // 2}H", raw)
        raw = struct.pack(f"<{len(halves)}I", *(half << 16 for half in halves))
        datatype = "FP32"
    size = struct.calcsize(f"<{_FORMATS[datatype]}")
    found: list[Any] = []
    # In pieces: a call for millions of elements would keep all other threads waiting.
    for at in range(0, len(raw), _PIECE):
        piece = raw[at : at + _PIECE]
        found += struct.unpack(f"<{len(piece) // size}{_FORMATS[datatype]}", piece)
    return found


def _texts(raw: bytes) -> Iterator[str]:
    at = 0
    while at < len(raw):
        (size,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size + size
        if at > len(raw):
            raise IndexError(at)
        yield raw[at - size : at].decode()


def output(name: str, values: Sequence[Any], *, batch_axis: bool) -> dict[str, Any]:
    """Return the output tensor of `values`, one for each event; without a batch axis, of the only event.

    Numbers, truth values and texts of one shape become their datatype. All else becomes texts: the JSON of each value.
    """
    try:
        tensor = measured(list(values) if batch_axis else values[0])
        datatype = _datatype(tensor.elements)
    except RaggedError:
        datatype = ""
    if not datatype:
        texts = [json_text.dumps(value).decode() for value in values]
        return {"name": name, "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    return {"name": name, "datatype": datatype, "shape": list(tensor.shape) or [1], "data": tensor.elements}


def _datatype(found: Sequence[Any]) -> str:
    """Return the datatype of elements; empty if none holds them."""
    types = set(map(type, found))
    if types == {int}:
        if min(found) >= _LEAST_INT and max(found) <= _MOST_INT:
            return "INT64"
        return "UINT64" if min(found) >= 0 and max(found) <= _MOST_UINT else ""
    if types == {float}:
        return "FP64"
    if types == {int, float}:
        whole = [each for each in found if type(each) is int]
        return "FP64" if min(whole) >= _LEAST_INT and max(whole) <= _MOST_UINT else ""
    return {frozenset({bool}): "BOOL", frozenset({str}): "BYTES"}.get(frozenset(types), "")
