"""The two protocols of model servers (plain JSON, and KServe v2, chosen by the URL's path), and the circuit breaker.

While a server is down, events wait, and one at a time probes it. The circuit is closed: requests pass. N consecutive
failures open it, and so does an answer with Retry-After. Open: no request passes; events wait, and their attempts are
not counted. After the wait it is half-open: one request passes as a probe; success closes the circuit, failure opens it
again. A failed batch does not change the state, since one event may have caused it: the batch is split, and its events
decide.
"""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec

from infertool.errors import InferenceError, ModelLoadError, ModelUnavailableError
from infertool.models.port import LoadedModel, OnCircuit, Payload, version_text
from infertool.models.server_batches import PREFER, Parts, Results
from infertool.models.server_client import Client, Endpoint, endpoint
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

T = TypeVar("T")

# Wait of an event while a probe runs, or after the first failures of a server. Seconds.
SHORT_HOLD_S = 0.5
# Random addition to the wait, so that the probe is not always the same event. Seconds.
SPREAD_S = 0.25


class State(StrEnum):
    """The states of a circuit."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The circuit breaker of one server. Thread-safe."""

    def __init__(self, address: str, *, failures: int, wait_s: float, on_circuit: OnCircuit) -> None:
        self._address = address
        self._most_failures = failures
        self._wait_s = wait_s
        self._on_circuit = on_circuit
        self._lock = threading.Lock()
        self._state = State.CLOSED
        self._failures = 0
        self._open_until = 0.0
        self._reason = ""
        on_circuit(address, State.CLOSED)

    def call(self, request: Callable[[], T], *, events: int = 1) -> T:
        """Call `request`, which covers `events` events, if the circuit lets it pass.

        Raises the request's error, or `ModelUnavailableError` with the event's wait: if the circuit is open, if the
        server is unavailable, or if the request fails after others have opened the circuit.
        """
        probe = self._enter()
        try:
            answer = request()
        except ModelUnavailableError as error:
            _, hold_s = self._failed(str(error), probe=probe, pause_s=error.retry_after_s)
            raise ModelUnavailableError(str(error), retry_after_s=hold_s) from None
        except InferenceError as error:
            if not error.retryable:
                self._succeeded(probe=probe)  # the server answered
                raise
            if events > 1:
                self._undecided(probe=probe)
                raise
            known, hold_s = self._failed(str(error), probe=probe)
            if known:
                raise ModelUnavailableError(str(error), retry_after_s=hold_s) from None
            raise
        except BaseException as error:
            self._failed(type(error).__name__, probe=probe)
            raise
        self._succeeded(probe=probe)
        return answer

    def _enter(self) -> bool:
        """Return True if the request is the probe. Raises `ModelUnavailableError` if it must not pass."""
        with self._lock:
            if self._state is State.CLOSED:
                return False
            if self._state is State.OPEN and time.monotonic() >= self._open_until:
                self._become(State.HALF_OPEN)
                return True
            raise ModelUnavailableError(self._reason, retry_after_s=self._hold_s())

    def _succeeded(self, *, probe: bool) -> None:
        with self._lock:
            if probe:
                self._become(State.CLOSED)
            if self._state is State.CLOSED:  # a request from before it opened proves nothing
                self._failures = 0

    def _failed(self, reason: str, *, probe: bool, pause_s: float = 0.0) -> tuple[bool, float]:
        """Count a failure. Return whether the server was known to be down, and the event's wait in seconds."""
        with self._lock:
            known = self._state is not State.CLOSED and not probe
            if not known:
                self._failures += 1
                if probe or pause_s or self._failures >= self._most_failures:
                    self._open(reason, pause_s or self._wait_s)
            return known, self._hold_s()

    def _undecided(self, *, probe: bool) -> None:
        if probe:
            with self._lock:
                self._state = State.OPEN  # its wait is over: the next request is the probe

    def _open(self, reason: str, wait_s: float) -> None:
        self._reason = reason
        self._open_until = time.monotonic() + wait_s
        self._become(State.OPEN, reason, wait_s)

    def _hold_s(self) -> float:
        left_s = self._open_until - time.monotonic() if self._state is State.OPEN else SHORT_HOLD_S
        return max(left_s, 0.0) + random.uniform(0, SPREAD_S)  # noqa: S311  (no secret)

    def _become(self, state: State, reason: str = "", retry_in_s: float = 0.0) -> None:
        self._state = state
        self._on_circuit(self._address, state, reason, retry_in_s)


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
        return self._results.of_event(self._breaker.call(lambda: self._client.post(self._endpoint, payload)))

    def predict_batch(self, payloads: Sequence[Payload]) -> Sequence[Any]:
        """Return the server's answer for each event, or the error that it names for it."""
        return self._parts.ask(
            payloads, lambda part: self._breaker.call(lambda: self._ask(list(part)), events=len(part))
        )

    def warm_up(self) -> None:
        """Do nothing: the protocol has no readiness check, and the circuit breaker handles an unavailable server."""

    def version(self) -> str:
        """Return no version: the protocol has none."""
        return ""

    def _ask(self, payloads: Sequence[Payload]) -> Sequence[Any]:
        status, answers = self._client.exchange(self._endpoint, payloads, PREFER)
        return self._results.of_batch(status, answers, len(payloads))


_PATH = re.compile(r"(.*)(/v2/models/[^/]+(?:/versions/([^/]+))?)/infer")


class _InputMetadata(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class _Metadata(msgspec.Struct):
    inputs: list[_InputMetadata]


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
        return self._breaker.call(
            lambda: self._results(self._client.post(self._endpoint, document), len(rows)), events=len(rows)
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
        if not (self._signature.batch_axis and shape and shape[0] == count):
            if count > 1:
                raise self._broken(f"output {output.name!r} in shape {shape} for {count} events")
            return [nested(elements, shape)]
        size = len(elements) // count
        return [nested(elements[start : start + size], shape[1:]) for start in range(0, len(elements), size)]

    def _broken(self, what: str) -> InferenceError:
        return InferenceError(f"{self._endpoint.shown} answered {what}")


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
