"""Turns what a spec led to (a function, a class, an object) into a `LoadedModel`."""

from __future__ import annotations

import inspect
from typing import Any

from infertool.errors import ModelLoadError
from infertool.models.port import LoadedModel

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
