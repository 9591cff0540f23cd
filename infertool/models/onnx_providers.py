"""The execution providers of an ONNX model: which are asked for, which are used, and where their tensors are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import onnxruntime

from infertool.errors import ModelLoadError, SettingsError
from infertool.settings.tree import ModelSettings
from infertool.telemetry.logs import log
from infertool.text.input import did_you_mean

_ENDING: Final = "ExecutionProvider"
CPU: Final = f"CPU{_ENDING}"
# It builds an engine for each shape, which takes minutes: only for those who ask for it.
_TENSORRT: Final = f"Tensorrt{_ENDING}"
_WITH_DEVICES: Final = {f"{name}{_ENDING}" for name in ("CUDA", "Tensorrt", "ROCM", "MIGraphX", "Dml")}
# Providers with device memory that calls bind inputs and outputs to, and its name.
BOUND: Final[dict[str, str]] = {f"CUDA{_ENDING}": "cuda", _TENSORRT: "cuda"}


def chosen(settings: ModelSettings) -> list[str]:
    """Return the providers to ask for, in order, with the CPU last. Raises `SettingsError` and `ModelLoadError`."""
    available = onnxruntime.get_available_providers()
    found = [_named(name, available, settings.spec) for name in settings.providers]
    found = found or [each for each in available if each != _TENSORRT]
    if settings.device_id and not _WITH_DEVICES.intersection(found):
        raise SettingsError(
            f"model.device_id is {settings.device_id}, and {settings.spec} runs on the CPU",
            key="model.device_id",
            advice="leave it out, or install onnxruntime-gpu in place of onnxruntime",
        )
    return [*dict.fromkeys([*found, CPU])]


def _named(name: str, available: Sequence[str], spec: str) -> str:
    """Return a provider's full name: `cuda` is CUDAExecutionProvider."""
    known: dict[str, str] = {_short(each): each for each in onnxruntime.get_all_providers()}
    full = known.get(_short(name))
    if full is None:
        advice = did_you_mean(_short(name), known) or f"this onnxruntime has: {_listed(available)}"
        raise SettingsError(
            f"model.providers: {name!r} is no provider of onnxruntime", key="model.providers", advice=advice
        )
    if full not in available:
        what = f"model {spec} cannot be loaded: this onnxruntime has no {full}, only {_listed(available)}"
        raise ModelLoadError(
            what, spec=spec, advice="install its build, such as onnxruntime-gpu in place of onnxruntime"
        )
    return full


def _short(name: str) -> str:
    return name.lower().removesuffix(_ENDING.lower())


def _listed(providers: Sequence[str]) -> str:
    return ", ".join(map(_short, providers))


def with_options(providers: Sequence[str], device_id: int) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the providers with their options, as a session takes them."""
    return [(name, {"device_id": str(device_id)} if name in _WITH_DEVICES else {}) for name in providers]


def check_used(session: Any, asked: Sequence[str], settings: ModelSettings) -> None:
    """Raise `ModelLoadError` if a configured provider is not used; onnxruntime falls back to others without a word.

    Warn if one that this onnxruntime brings along is not.
    """
    missing = [name for name in asked if name in _WITH_DEVICES and name not in session.get_providers()]
    if not missing:
        return
    what = f"model {settings.spec}: {', '.join(missing)} cannot be used, {_listed(session.get_providers())} would be"
    if settings.providers:
        advice = "are its driver and libraries installed? Or leave it out of model.providers"
        raise ModelLoadError(what, spec=settings.spec, advice=advice)
    log.warning("model %s runs without %s: are its driver and libraries installed?", settings.spec, ", ".join(missing))


def bound_device(session: Any) -> str:
    """Return the device whose memory the session's inputs and outputs are bound to; "" if they stay where they are."""
    return BOUND.get(session.get_providers()[0], "")
