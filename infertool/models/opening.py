"""Opens the model that the settings describe: found by its spec, with what the settings put around it."""

from __future__ import annotations

from infertool.models import loader
from infertool.models.inputs import refuse_inputs
from infertool.models.port import LoadedModel, OnCircuit
from infertool.settings.tree import ModelSettings
from infertool.units import parse_capacity

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
        from infertool.models.remote.opening import open_remote  # noqa: PLC0415  (0.1 s to import)

        return open_remote(settings, on_circuit)
    if spec.startswith(_ONNX):
        from infertool.models.onnx import open_onnx  # noqa: PLC0415  (needs the extra, and 0.1 s)

        return open_onnx(settings)
    refuse_inputs(settings)
    return loader.load(spec)
