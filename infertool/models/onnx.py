"""ONNX models, run by onnxruntime: `onnx:path/to/file.onnx`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infertool.errors import InferenceError, ModelLoadError, SettingsError
from infertool.models.batch_results import WrongResultsError
from infertool.models.port import LoadedModel, Payload, version_text
from infertool.models.tensors import (
    Described,
    InputSetting,
    Tensor,
    as_results,
    check_input_names,
    input_settings,
    shown,
    signature,
)
from infertool.models.user_code import guarded, text_of
from infertool.settings.tree import ModelSettings
from infertool.text.input import did_you_mean, home_path, is_file

try:
    import numpy as np
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
except ImportError as error:
    raise ModelLoadError(
        f"ONNX models need onnxruntime: {error}", spec="onnx:", advice="pip install 'infertool[onnx]'"
    ) from error

from infertool.models import onnx_providers  # it needs onnxruntime, too

_FAULTS = (ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.RuntimeException)
_ERRORS_ONLY = 3
# The datatype of the v2 protocol, and of numpy.
_TYPES: Mapping[str, tuple[str, Any]] = {
    "tensor(float)": ("FP32", np.float32),
    "tensor(double)": ("FP64", np.float64),
    "tensor(float16)": ("FP16", np.float16),
    "tensor(int64)": ("INT64", np.int64),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int16)": ("INT16", np.int16),
    "tensor(int8)": ("INT8", np.int8),
    "tensor(uint64)": ("UINT64", np.uint64),
    "tensor(uint32)": ("UINT32", np.uint32),
    "tensor(uint16)": ("UINT16", np.uint16),
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(bool)": ("BOOL", np.bool_),
    "tensor(string)": ("BYTES", np.object_),
}


_NUMBERS = _TYPES.keys() - {"tensor(string)"}


def open_onnx(settings: ModelSettings) -> LoadedModel:
    """Load the file that `model.spec` names. Raises `ModelLoadError`, and `SettingsError` for `model.inputs`."""
    spec = settings.spec
    path = home_path(spec.partition(":")[2])
    if not is_file(path):
        nearest = did_you_mean(path.name, (other.name for other in path.parent.glob("*.onnx")))
        advice = nearest or "write onnx:path/to/file.onnx"
        raise ModelLoadError(f"model {spec} cannot be loaded: no file {path}", spec=spec, advice=advice)
    providers = onnx_providers.chosen(settings)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    # One thread a call: the workers provide the concurrency, and more threads would compete for the cores.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with guarded("cannot be loaded", spec, "is it an ONNX model, of a version that this onnxruntime knows?"):
        session = onnxruntime.InferenceSession(
            path, options, providers=onnx_providers.with_options(providers, settings.device_id)
        )
    onnx_providers.check_used(session, providers, settings)
    model = OnnxModel(session, settings)
    batches = model.predict_batch if model.takes_batches else None
    version = _version(session)
    return LoadedModel(
        name=f"onnx:{path.name}",
        spec=spec,
        predict=model.predict,
        predict_batch=batches,
        inputs=model.inputs,
        version=lambda: version,
    )


def _version(session: Any) -> str:
    """Return the entry model_version of the file's properties, else its model_version, of which 0 means none."""
    told = session.get_modelmeta()
    return version_text(told.custom_metadata_map.get("model_version", "")) or version_text(told.version or "")


class OnnxModel:
    """A session with its input signature. Thread-safe, as sessions are."""

    def __init__(self, session: Any, settings: ModelSettings) -> None:
        self._session = session
        types = {each.type for each in (*session.get_inputs(), *session.get_outputs())}
        # Only numbers can be in a device's memory: no texts, and no maps, which scikit-learn's classifiers return.
        self._device = onnx_providers.bound_device(session) if types <= _NUMBERS else ""
        self._device_id = settings.device_id
        self._outputs = [output.name for output in session.get_outputs()]
        # The size of the first axis where the file fixes it: there it counts no events.
        self._fixed = {output.name: next(iter(output.shape), None) for output in session.get_outputs()}
        self.inputs = _described(session.get_inputs(), settings)
        self._signature = signature(self.inputs)
        self._types = [_TYPES[each.type][1] for each in session.get_inputs()]
        self.takes_batches = self._signature.takes_batches

    def predict(self, payload: Payload) -> dict[str, Any]:
        """Return the model's outputs for one event."""
        return self._signature.result(payload, self._run)

    def predict_batch(self, payloads: Sequence[Payload]) -> list[dict[str, Any] | InferenceError]:
        """Return each event's outputs, or its error if the event does not fit."""
        return self._signature.results(payloads, self._run)

    def _run(self, rows: Sequence[Sequence[Tensor]]) -> list[dict[str, Any]]:
        feeds = {
            each.name: self._array(each.name, dtype, [row[number] for row in rows])
            for number, (each, dtype) in enumerate(zip(self._signature.inputs, self._types, strict=True))
        }
        try:
            outputs = self._run_bound(feeds) if self._device else self._session.run(None, feeds)
        except _FAULTS as error:
            taken = ", ".join(f"{name} {shown(array.shape)}" for name, array in feeds.items())
            text = " ".join(text_of(error).split())
            raise InferenceError(f"the model fails with {taken}: {text}", retryable=False) from None
        named = zip(self._outputs, outputs, strict=True)
        return as_results({name: self._column(name, output, len(rows)) for name, output in named})

    def _run_bound(self, feeds: Mapping[str, Any]) -> list[Any]:
        """Run with inputs and outputs in the device's memory: each is copied once, and all outputs together."""
        binding = self._session.io_binding()
        for name, array in feeds.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array, self._device, self._device_id)
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, self._device, self._device_id)
        self._session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())

    def _array(self, name: str, dtype: Any, tensors: Sequence[Tensor]) -> Any:
        shape = (len(tensors), *tensors[0].shape) if self._signature.batch_axis else tensors[0].shape
        elements = [element for tensor in tensors for element in tensor.elements]
        try:
            with np.errstate(over="raise"):
                return np.array(elements, dtype).reshape(shape)
        except (OverflowError, FloatingPointError):
            what = f"input {name!r}: a number is too large for {np.dtype(dtype)} {shown(shape)}"
            raise InferenceError(what, retryable=False) from None

    def _column(self, name: str, output: Any, count: int) -> list[Any]:
        """Return each event's part of an output."""
        is_fixed = count > 1 and self._fixed[name] == count
        if self._signature.batch_axis and _length(output) == count and not is_fixed:
            return [_plain(part) for part in output]
        if count == 1:
            return [_plain(output)]
        raise WrongResultsError(f"output {name!r} is not one for each of {count} events")


def _length(output: Any) -> int | None:
    """Return the size of an output's first axis; None if it has no axis."""
    return len(output) if isinstance(output, list) or (isinstance(output, np.ndarray) and output.ndim) else None


def _plain(value: Any) -> Any:
    """Return numpy values as Python values; an array of one element as that element."""
    if isinstance(value, np.ndarray):
        return value.item() if value.size == 1 else value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _described(inputs: Sequence[Any], settings: ModelSettings) -> tuple[Described, ...]:
    given = input_settings(settings.inputs)
    check_input_names(given, [each.name for each in inputs])
    described = []
    for each in inputs:
        if each.type not in _TYPES:
            what = f"model {settings.spec} cannot be used: its input {each.name!r} is a {each.type}"
            raise ModelLoadError(what, spec=settings.spec, advice="an event has numbers, texts and truth values")
        configured = given.get(each.name, InputSetting())
        if configured.datatype or configured.shape:
            what = f"model.inputs.{each.name}: an ONNX file contains type and shape"
            raise SettingsError(what, key="model.inputs", advice="give only where the event has it")
        shape = tuple(size if isinstance(size, int) else None for size in each.shape)
        described.append(Described(each.name, configured.path(each.name), _TYPES[each.type][0], shape))
    return tuple(described)
