"""Finds a model by its spec and makes it ready.

A spec is `sim:` with parameters, `package.module:callable`, `path/to/file.py:callable`, or a name from the entry
point group `infertool.models`. Modules are found in the working folder, too, and a file can import its neighbours.
"""

from __future__ import annotations

import inspect
from typing import Any

from infertool.errors import ModelLoadError
from infertool.models.guard import guarded
from infertool.models.port import LoadedModel, OnCircuit
from infertool.models.simulated import SCHEME, simulated
from infertool.models.sources import find
from infertool.models.tensors import refuse_inputs
from infertool.settings.tree import ModelSettings
from infertool.text.units import parse_capacity

_OPTIONAL = ("predict_batch", "warm_up", "close")


def adapt(found: object, *, name: str, spec: str) -> LoadedModel:
    """Return the model that `found` is; a class is instantiated without arguments.

    Raises `ModelLoadError`, or whatever the class raises.
    """
    model = found() if inspect.isclass(found) else found
    predict: Any = getattr(model, "predict", model)
    hooks = {hook: getattr(model, hook) for hook in _OPTIONAL if getattr(model, hook, None) is not None}
    for method, function in {"predict": predict, **hooks}.items():
        if reason := _unfit(function):
            raise _error(spec, f"{method} {reason}")
    if reason := _wrong_arguments(predict):
        raise _error(spec, reason)
    return LoadedModel(name=name, spec=spec, predict=predict, **hooks)


def _unfit(function: Any) -> str:
    if not callable(function):
        return f"is not callable but {type(function).__name__}"
    call = type(function).__call__
    if any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in (function, call)):
        return "is async, and models run in threads without an event loop"
    return ""


def _wrong_arguments(predict: Any) -> str:
    try:
        signature = inspect.signature(predict)
    except (TypeError, ValueError):
        return ""  # written in C without a signature: the first event will tell
    try:
        signature.bind({})
    except TypeError as error:
        return f"predict{signature} does not take the payload as its only argument ({error})"
    return ""


def _error(spec: str, reason: str) -> ModelLoadError:
    advice = "write def predict(payload), or a class with that method"
    return ModelLoadError(f"model {spec} cannot be used: {reason}", spec=spec, advice=advice)


_ADVICE = "correct the model, or run with --debug for the trace"


def load(spec: str) -> LoadedModel:
    """Import and build the model that `spec` names; `warm_up` is a step of its own. Raises `ModelLoadError`."""
    if spec.startswith(SCHEME):
        return simulated(spec)
    found = find(spec)
    with guarded("cannot be built", spec, _ADVICE):
        return adapt(found.thing, name=found.name, spec=spec)


def warm_up(model: LoadedModel) -> None:
    """Run the model's warm-up. Raises `ModelLoadError` with the reason when it fails."""
    with guarded("failed its warm-up", model.spec, _ADVICE):
        model.warm_up()


_REMOTE = ("http://", "https://")
_ONNX = "onnx:"


def open_model(settings: ModelSettings, on_circuit: OnCircuit = lambda *_change: None) -> LoadedModel:
    """Build the model of `settings`; `loader.warm_up` is a step of its own.

    `on_circuit` is told of the circuit breaker's states, if the model has one. Raises `ModelLoadError`, and
    `SettingsError` for settings that do not fit it.
    """
    model = _found(settings, on_circuit)
    if not settings.cache:
        return model
    from infertool.models.cache import cached  # noqa: PLC0415  (few use it)

    entries, ttl_s = parse_capacity(settings.cache)
    return cached(model, entries=entries, ttl_s=ttl_s, ignore=settings.cache_ignore)


def is_remote(settings: ModelSettings) -> bool:
    """Say whether the model is a server."""
    return settings.spec.lower().startswith(_REMOTE)


def _found(settings: ModelSettings, on_circuit: OnCircuit) -> LoadedModel:
    spec = settings.spec
    if is_remote(settings):
        from infertool.models.remote.protocols import open_remote  # noqa: PLC0415  (0.1 s to import)

        return open_remote(settings, on_circuit)
    if spec.startswith(_ONNX):
        from infertool.models.onnx import open_onnx  # noqa: PLC0415  (needs the extra, and 0.1 s)

        return open_onnx(settings)
    refuse_inputs(settings)
    return load(spec)
