"""The v2 protocol (KServe, Triton): a request to the payloads of events, and their results to a response.

The inverse of what a model with an address such as `http://host/v2/models/NAME/infer` sends. Each input is a field of
the event, under its name or under the path that `model.inputs` gives it. The first axis counts events if it is of the
same size in all inputs; each event then has one row. Otherwise the whole request is one event.

Results that are objects of the same fields become an output each field; other results the output `output`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import orjson

from infertool.gateway.v2_seen import Seen
from infertool.gateway.v2_tensors import Given, TensorError, elements, output
from infertool.models.tensors import Described, InputSetting, nested

# The header that tells the size of the JSON in front of raw bytes.
JSON_SIZE_HEADER: Final = "inference-header-content-length"
_SIZE: Final = re.compile(r"[0-9]{1,20}")
EXTENSIONS: Final = ("binary_tensor_data",)
# Events of one request: each is a message on the broker.
MOST_EVENTS: Final = 1024
# The output of results that are no objects.
OUTPUT: Final = "output"


class V2Error(ValueError):
    """A request that is not as the protocol says."""


class _Requested(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)


class _Document(msgspec.Struct):
    inputs: list[Given]
    id: str = ""
    outputs: list[_Requested] = msgspec.field(default_factory=list)
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)


_decode: Final = msgspec.json.Decoder(_Document).decode


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of a model: `inputs` is empty where nothing is. `settings` says where an event has them.

    `version` is the one that there is, whatever the model itself says: clients that name it get any.
    """

    name: str
    version: str = "1"
    platform: str = "infertool"
    inputs: tuple[Described, ...] = ()
    settings: Mapping[str, InputSetting] | None = None
    seen: Seen = field(default_factory=Seen)

    @property
    def versions(self) -> list[str]:
        """The versions that a client may name."""
        return list(dict.fromkeys([*self.seen.versions, self.version]))

    def metadata(self) -> dict[str, Any]:
        """Return the model's metadata. The outputs are those of earlier results: nothing else describes them."""
        inputs = [
            {"name": each.name, "datatype": each.datatype, "shape": [-1 if s is None else s for s in each.shape]}
            for each in self.inputs
        ]
        return {
            "name": self.name, "versions": self.versions, "platform": self.platform, "inputs": inputs,
            "outputs": self.seen.outputs,
        }  # fmt: skip

    def path(self, name: str) -> tuple[str, ...]:
        """Return the path in an event to an input."""
        return (self.settings or {}).get(name, InputSetting()).path(name)

    @property
    def has_batch_axis(self) -> bool | None:
        """Whether the first axis of its inputs counts events; None where nothing is known of them."""
        if not self.inputs:
            return None
        return all(each.shape and each.shape[0] in {1, None} for each in self.inputs)


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A request: the payload of each event, and what the response repeats."""

    payloads: list[dict[str, Any]]
    batch_axis: bool
    id: str = ""
    outputs: tuple[str, ...] = ()


def read(body: bytes, json_size: str | None, model: Model) -> InferenceRequest:
    """Return the request in a body; `json_size` is the header of that name. Raises `V2Error`."""
    text, raw = _parted(body, json_size)
    try:
        document = _decode(text)
        tensors = _tensors(document.inputs, raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise V2Error(f"the body is not as the v2 protocol says: {error}") from None
    except TensorError as error:
        raise V2Error(str(error)) from None
    if any("classification" in each.parameters for each in document.outputs):
        raise V2Error("the classification extension is not offered")
    sizes = {given.shape[0] if given.shape else None for given in document.inputs}
    batch_axis = len(sizes) == 1 and None not in sizes if model.has_batch_axis is None else model.has_batch_axis
    if batch_axis and len(sizes) > 1:
        raise V2Error("the first axis counts events, and it is not of the same size in all inputs")
    count = (sizes.pop() if batch_axis else 1) or 0
    if not 0 < count <= MOST_EVENTS:
        raise V2Error(f"the inputs hold {count} events; a request has 1 to {MOST_EVENTS}")
    payloads = [_payload(document.inputs, tensors, model, number, batch_axis=batch_axis) for number in range(count)]
    return InferenceRequest(payloads, batch_axis, document.id, tuple(each.name for each in document.outputs))


def response(request: InferenceRequest, results: Sequence[Any], model: Model, version: str = "") -> bytes:
    """Return the body of the response, from the result of each event. Raises `V2Error`.

    `version` is the one that answered, "" where it did not say.
    """
    columns = _columns(results)
    if unknown := [name for name in request.outputs if name not in columns]:
        raise V2Error(f"the result has no output {unknown[0]!r}; it has: {', '.join(columns)}")
    names = request.outputs or tuple(columns)
    document: dict[str, Any] = {"model_name": model.name, "model_version": version or model.version}
    if request.id:
        document["id"] = request.id
    outputs = [output(name, columns[name], batch_axis=request.batch_axis) for name in names]
    model.seen.note(version, outputs, batch_axis=request.batch_axis, are_all=not request.outputs)
    document["outputs"] = outputs
    return orjson.dumps(document)


def _parted(body: bytes, json_size: str | None) -> tuple[bytes, memoryview]:
    """Return the JSON of a body, and the raw bytes behind it."""
    if json_size is None:
        return body, memoryview(b"")
    size = int(json_size) if _SIZE.fullmatch(json_size) else len(body) + 1
    if size > len(body):
        raise V2Error(f"the header {JSON_SIZE_HEADER} is not the size of the JSON in the body")
    return body[:size], memoryview(body)[size:]


def _tensors(inputs: Sequence[Given], raw: memoryview) -> list[list[Any]]:
    """Return the elements of each input; raw bytes are in the order of the inputs. Raises `TensorError`."""
    names = [given.name for given in inputs]
    if not names or len(set(names)) < len(names):
        raise TensorError("a request has inputs, each with a name of its own")
    found = []
    for given in inputs:
        size = given.raw_size
        if size is not None and size > len(raw):
            raise TensorError(f"input {given.name!r}: the body ends before its {size} bytes")
        found.append(elements(given, None if size is None else bytes(raw[:size])))
        raw = raw[size or 0 :]
    if raw:
        raise TensorError(f"{len(raw)} raw bytes belong to no input")
    return found


def _payload(
    inputs: Sequence[Given], tensors: Sequence[list[Any]], model: Model, number: int, *, batch_axis: bool
) -> dict[str, Any]:
    """Return the payload of one event."""
    payload: dict[str, Any] = {}
    for given, all_elements in zip(inputs, tensors, strict=True):
        shape = given.shape[1:] if batch_axis else given.shape
        size = math.prod(shape)
        if 0 in shape[1:]:
            # A handful of bytes may name any number of empty lists.
            raise V2Error(f"input {given.name!r}: the shape {given.shape} has no elements behind an axis of an event")
        _put(payload, model.path(given.name), nested(all_elements[number * size : (number + 1) * size], shape))
    return payload


def _put(payload: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *above, last = path
    at: Any = payload
    for key in above:
        at = at.setdefault(key, {}) if isinstance(at, dict) else None
    if not isinstance(at, dict):
        raise V2Error(f"two inputs exclude each other: {'.'.join(path)} is inside of another one's value")
    at[last] = value


def _columns(results: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the outputs by name, one value for each event."""
    first = results[0]
    if (
        isinstance(first, dict)
        and first
        and all(type(each) is dict and each.keys() == first.keys() for each in results)
    ):
        return {str(name): [each[name] for each in results] for name in first}
    return {OUTPUT: list(results)}
