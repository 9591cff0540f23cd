"""The two protocols of model servers: plain JSON, and KServe v2, chosen by the URL's path."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from infertool.errors import InferenceError, ModelLoadError
from infertool.models.batch_results import WrongResultsError
from infertool.models.circuit_breaker import Breaker
from infertool.models.port import LoadedModel, OnCircuit, Payload, version_text
from infertool.models.server_batches import PREFER, Parts, Results
from infertool.models.server_client import Client, Endpoint, as_json, endpoint
from infertool.models.tensors import (
    KINDS,
    Described,
    InputSetting,
    RaggedError,
    Result,
    Row,
    Signature,
    Tensor,
    as_results,
    check_input_names,
    input_settings,
    measured,
    nested,
    refuse_inputs,
    signature,
    sizes,
)
from infertool.settings.tree import ModelSettings


class PlainModel:
    """Plain JSON: POST one event, or an array of events that is answered by an array in the same order."""

    def __init__(self, client: Client, breaker: Breaker, endpoint: Endpoint, error_field: str) -> None:
        self._client = client
        self._breaker = breaker
        self._endpoint = endpoint
        self._results = Results(endpoint, error_field)
        self._parts = Parts(endpoint.shown)

    def predict(self, payload: Payload) -> Any:
        """Return the server's answer."""
        body = as_json(payload)
        return self._results.of_event(self._breaker.call(lambda: self._client.post(self._endpoint, body)))

    def predict_batch(self, payloads: Sequence[Payload]) -> Sequence[Any]:
        """Return the server's answer for each event, or the error that it names for it."""
        return self._parts.ask(payloads, self._ask)

    def warm_up(self) -> None:
        """Do nothing: the protocol has no readiness check, and the circuit breaker handles an unavailable server."""

    def version(self) -> str:
        """Return no version: the protocol has none."""
        return ""

    def _ask(self, payloads: Sequence[Payload]) -> Sequence[Any]:
        body, count = as_json(list(payloads)), len(payloads)

        def request() -> Sequence[Any]:
            status, answers = self._client.exchange(self._endpoint, body, PREFER)
            return self._results.of_batch(status, answers, count)

        return self._breaker.call(request, events=count)


_PATH = re.compile(r"(.*)(/v2/models/[^/]+(?:/versions/([^/]+))?)/infer")


class _InputMetadata(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class _Metadata(msgspec.Struct):
    inputs: list[_InputMetadata]


class _OutputMetadata(msgspec.Struct):
    name: str
    shape: list[int] = []


class _Outputs(msgspec.Struct):
    outputs: list[_OutputMetadata] = []


class _Versions(msgspec.Struct):
    versions: list[str] = []


class _Output(msgspec.Struct):
    name: str
    shape: list[int]
    data: list[Any]


class _Answer(msgspec.Struct):
    outputs: list[_Output]


def is_v2(path: str) -> bool:
    """Return True if a URL's path is that of the v2 protocol."""
    return _PATH.fullmatch(path) is not None


class V2Model:
    """KServe v2: sends tensors. The inputs are described by `model.inputs`, else by the server's metadata."""

    def __init__(self, client: Client, breaker: Breaker, endpoint: Endpoint, settings: ModelSettings) -> None:
        self._client = client
        self._breaker = breaker
        self._endpoint = endpoint
        self._given = input_settings(settings.inputs)
        self._datatypes: list[str] = []
        self._signature: Signature
        self._parts = Parts(endpoint.shown)
        self._version = ""
        # The size of an output's first axis where the server's metadata fix it: there it counts no events.
        self._fixed: dict[str, int] = {}

    def warm_up(self) -> None:
        """Check that server and model are ready, and read the model's inputs. Raises `ModelLoadError`."""
        match = _PATH.fullmatch(self._endpoint.path)
        server, model, version = match.groups() if match else ("", "", None)
        try:
            self._client.check(self._endpoint.at(f"{server}/v2/health/ready"))
            self._client.check(self._endpoint.at(f"{server}{model}/ready"))
            described = self._from_settings()
            metadata = None if described and version else self._metadata(f"{server}{model}", needed=not described)
            described = described or self._from_metadata(metadata)
            self._fixed = _fixed_sizes(metadata)
            self._version = version_text(unquote(version)) if version else _told_version(metadata)
        except InferenceError as error:
            what = f"model {self._endpoint.shown} is not ready: {error}"
            advice = "is the server up, and the model loaded there?"
            raise ModelLoadError(what, spec=self._endpoint.shown, advice=advice) from None
        self._datatypes = [each.datatype for each in described]
        self._signature = signature(described)

    def version(self) -> str:
        """Return the version in the URL, else the one that the server told at the warm-up."""
        return self._version

    def predict(self, payload: Payload) -> Result:
        """Return the model's outputs for one event."""
        return self._signature.result(payload, self._ask)

    def predict_batch(self, payloads: Sequence[Payload]) -> list[Result | InferenceError]:
        """Return each event's outputs, or its error if the event does not fit."""
        return self._signature.results(payloads, self._ask)

    def _from_settings(self) -> list[Described]:
        """Return the inputs that the settings describe; empty if the server's metadata is used."""
        if not any(each.datatype for each in self._given.values()):
            return []
        return [
            Described(name, each.path(name), self._datatype(name, each.datatype), (None, *sizes(each.shape or ())))
            for name, each in self._given.items()
        ]

    def _metadata(self, path: str, *, needed: bool) -> Any:
        """Return the model's metadata; None if there is none and it is not needed."""
        try:
            return self._client.get(self._endpoint.at(path))
        except InferenceError:
            if needed:
                raise
            return None

    def _from_metadata(self, metadata: Any) -> list[Described]:
        try:
            inputs = msgspec.convert(metadata, _Metadata).inputs
        except msgspec.ValidationError as error:
            raise InferenceError(f"its metadata is not that of the v2 protocol: {error}") from None
        if not inputs:
            what = f"model {self._endpoint.shown} does not describe its inputs"
            advice = 'describe them, like model.inputs = {X = {from = "features", datatype = "FP32", shape = [8]}}'
            raise ModelLoadError(what, spec=self._endpoint.shown, advice=advice)
        check_input_names(self._given, [each.name for each in inputs])
        return [
            Described(
                each.name,
                self._given.get(each.name, InputSetting()).path(each.name),
                self._datatype(each.name, each.datatype),
                sizes(each.shape),
            )
            for each in inputs
        ]

    def _datatype(self, name: str, datatype: str) -> str:
        if datatype in KINDS:
            return datatype
        what = f"model {self._endpoint.shown}: input {name!r} has the datatype {datatype!r}"
        raise ModelLoadError(what, spec=self._endpoint.shown, advice=f"one of {', '.join(KINDS)} can be sent")

    def _ask(self, rows: list[Row]) -> list[Result]:
        return self._parts.ask(rows, self._send)

    def _send(self, rows: Sequence[Row]) -> list[Result]:
        document = {"inputs": [self._tensor(number, [row[number] for row in rows]) for number in range(len(rows[0]))]}
        body = as_json(document)
        return self._breaker.call(
            lambda: self._results(self._client.post(self._endpoint, body), len(rows)), events=len(rows)
        )

    def _tensor(self, number: int, tensors: Sequence[Tensor]) -> dict[str, Any]:
        batch_axis = [len(tensors)] if self._signature.batch_axis else []
        return {
            "name": self._signature.inputs[number].name,
            "datatype": self._datatypes[number],
            "shape": [*batch_axis, *tensors[0].shape],
            "data": [element for tensor in tensors for element in tensor.elements],
        }

    def _results(self, answer: Any, count: int) -> list[Result]:
        try:
            outputs = msgspec.convert(answer, _Answer).outputs
        except msgspec.ValidationError as error:
            raise self._broken(f"not as the v2 protocol says: {error}") from None
        if not outputs:
            raise self._broken("without outputs")
        return as_results({output.name: self._column(output, count) for output in outputs})

    def _column(self, output: _Output, count: int) -> list[Any]:
        """Return each event's part of an output."""
        try:
            elements, shape = measured(output.data).elements, output.shape
        except RaggedError as error:
            raise self._broken(f"output {output.name!r} with lists of different lengths below {error}") from None
        if len(elements) != math.prod(shape) or not elements:
            raise self._broken(f"output {output.name!r} with {len(elements)} elements in shape {shape}")
        is_fixed = count > 1 and self._fixed.get(output.name) == count
        if not (self._signature.batch_axis and shape and shape[0] == count) or is_fixed:
            if count > 1:
                what = f"{self._endpoint.shown} answered output {output.name!r} in shape {shape} for {count} events"
                raise WrongResultsError(what, retryable=True)
            return [nested(elements, shape)]
        size = len(elements) // count
        return [nested(elements[start : start + size], shape[1:]) for start in range(0, len(elements), size)]

    def _broken(self, what: str) -> InferenceError:
        return InferenceError(f"{self._endpoint.shown} answered {what}")


def _fixed_sizes(metadata: Any) -> dict[str, int]:
    """Return the size of the first axis of each output for which the server tells one."""
    try:
        outputs = msgspec.convert(metadata, _Outputs).outputs
    except msgspec.ValidationError:
        return {}
    return {each.name: each.shape[0] for each in outputs if each.shape}


def _told_version(metadata: Any) -> str:
    """Return the version that a server uses where the URL names none: its highest; "" if it tells none."""
    try:
        versions = msgspec.convert(metadata, _Versions).versions
    except msgspec.ValidationError:
        return ""
    if len(versions) > 1:
        return max(filter(str.isdecimal, versions), key=int, default="")
    return version_text(versions[0]) if versions else ""


def open_remote(settings: ModelSettings, on_circuit: OnCircuit) -> LoadedModel:
    """Return the model of the server in `model.spec`; sends nothing. Raises `ModelLoadError` and `SettingsError`."""
    address = endpoint(settings)
    client = Client(address.origin, settings)
    breaker = Breaker(
        address.shown, failures=settings.circuit_failures, wait_s=settings.circuit_wait_s, on_circuit=on_circuit
    )
    model: V2Model | PlainModel
    if is_v2(address.path):
        model = V2Model(client, breaker, address, settings)
    else:
        refuse_inputs(settings)
        model = PlainModel(client, breaker, address, settings.error_field)
    return LoadedModel(
        name=address.shown,
        spec=address.shown,
        predict=model.predict,
        predict_batch=model.predict_batch,
        warm_up=model.warm_up,
        close=client.close,
        version=model.version,
        # A server that knows events alone does not understand an array; a model without a batch axis gains nothing.
        batches_unasked=settings.batches,
    )
