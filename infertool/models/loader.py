"""Loads a model by its spec, with a cache of its results if one is set.

A spec is `sim:` with parameters, `package.module:callable`, `path/to/file.py:callable`, `onnx:path`, an http(s) URL, or
a name in the entry point group `infertool.models`. Modules are also found in the working folder, and a file can import
its neighbours.

The cache's key is a hash of the payload with sorted keys, without the fields in `model.cache_ignore`. Equal events that
are in progress at the same time all call the model: an event that waited for another one would share its failure.
Failures are not cached.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import orjson

from infertool.errors import ModelLoadError, SettingsError
from infertool.models.async_calls import Bridge, is_async_generator
from infertool.models.batch_results import matched
from infertool.models.port import Cached, LoadedModel, OnCircuit, Payload, PredictBatch, version_text
from infertool.models.simulated import SCHEME, simulated
from infertool.models.tensors import Described, refuse_inputs
from infertool.models.user_code import guarded
from infertool.secret import mask_url
from infertool.settings.tree import ModelSettings
from infertool.text import json_text
from infertool.text.input import did_you_mean, home_path, is_file, parse_capacity

_KEY_BYTES = 16
_MISS = object()
_by_kind = msgspec.msgpack.Encoder().encode


def cached(model: LoadedModel, *, entries: int, ttl_s: float, ignore: Sequence[str]) -> LoadedModel:
    """Return `model` behind a cache of at most `entries` results, each kept for `ttl_s` seconds."""
    store = _Store(entries, ttl_s, frozenset(ignore))

    def predict(payload: Payload) -> Any:
        key = store.key(payload)
        found = store.get(key)
        return found if found is not _MISS else store.put(key, model.predict(payload))

    return replace(model, predict=predict, predict_batch=_batches(store, model.predict_batch))


def _batches(store: _Store, ask: PredictBatch | None) -> PredictBatch | None:
    if ask is None:
        return None

    def predict_batch(payloads: Sequence[Payload]) -> list[Any]:
        keys = [store.key(payload) for payload in payloads]
        results = [store.get(key) for key in keys]
        missing = [place for place, result in enumerate(results) if result is _MISS]
        answers = matched(ask([payloads[place] for place in missing]), len(missing)) if missing else []
        for place, answer in zip(missing, answers, strict=True):
            results[place] = store.put(keys[place], answer)
        return results

    return predict_batch


class _Store:
    """Results by key, kept as JSON so that later changes of a returned result do not affect them."""

    def __init__(self, entries: int, ttl_s: float, ignore: frozenset[str]) -> None:
        self._ignore = ignore
        from cachetools import TTLCache  # noqa: PLC0415  (rarely used)

        self._kept: TTLCache[bytes, bytes] = TTLCache(entries, ttl_s)
        self._lock = threading.Lock()

    def key(self, payload: Payload) -> bytes:
        content = payload
        if isinstance(payload, dict):
            content = {name: value for name, value in payload.items() if name not in self._ignore}
        try:
            written = json_text.dumps(content, option=orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME)
        except TypeError:  # values that only MessagePack holds: bytes, times, and keys that are no texts
            written = _by_kind(content)
        if b"null" in written:  # or a number that is none, or infinite
            written = _by_kind(content)
        return hashlib.blake2b(written, digest_size=_KEY_BYTES).digest()

    def get(self, key: bytes) -> Any:
        with self._lock:
            kept = self._kept.get(key)
        return _MISS if kept is None else Cached(json_text.loads_exact(kept))

    def put(self, key: bytes, result: Any) -> Any:
        """Keep `result` if it can be cached; return it."""
        if issubclass(type(result), BaseException):
            return result  # one event of a batch failed
        try:
            encoded = json_text.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY)
        except Exception:  # noqa: BLE001  (not JSON, or its own code raises: the event will fail)
            return result
        with self._lock:
            self._kept[key] = encoded
        return result


ENTRY_POINTS = "infertool.models"

_FORMS = "a model is sim:, package.module:callable, path/to/file.py:callable, or an installed name"
_IMPORT_ADVICE = "correct the module, or run with --debug for the trace"


@dataclass(frozen=True, slots=True)
class Found:
    """The object that a spec names. `name` is for people, and contains no folder of this machine.

    `version` is the `__version__` of the module that the spec names.
    """

    name: str
    thing: object
    version: str = ""


def find(spec: str) -> Found:
    """Import the object that `spec` names. Raises `ModelLoadError`."""
    source, _, attribute = spec.rpartition(":")
    if source and attribute:
        return _in_file(spec, Path(source), attribute) if _is_path(source) else _in_module(spec, source, attribute)
    name = source or attribute
    if _is_path(name):
        raise _error(spec, "does not say which callable", f"write {name}:callable")
    return _installed(spec, name)


def _is_path(source: str) -> bool:
    return source.endswith(".py") or "/" in source


def _in_file(spec: str, path: Path, attribute: str) -> Found:
    path = home_path(path).resolve()
    if not is_file(path):
        neighbours = (other.name for other in path.parent.glob("*.py"))
        raise _error(spec, f"cannot be imported: no file {path}", did_you_mean(path.name, neighbours))
    _make_importable(path.parent)
    with guarded("cannot be imported", spec, _IMPORT_ADVICE):
        module = _run_file(path)
    return Found(f"{path.stem}:{attribute}", _attribute(spec, module, attribute), _module_version(module))


def _run_file(path: Path) -> ModuleType:
    name = f"infertool_model_{path.stem}"
    file_spec = importlib.util.spec_from_file_location(name, path)
    if file_spec is None or file_spec.loader is None:
        raise ImportError(f"{path} is no Python source file")
    module = importlib.util.module_from_spec(file_spec)
    sys.modules[name] = module  # dataclasses and pickle look up modules here
    file_spec.loader.exec_module(module)
    return module


def _in_module(spec: str, name: str, attribute: str) -> Found:
    _make_importable(Path.cwd())
    with guarded("cannot be imported", spec, _IMPORT_ADVICE):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise  # the module exists; one that it imports does not
            raise _missing_module(spec, name, error) from error
    return Found(spec, _attribute(spec, module, attribute), _module_version(module))


def _module_version(module: ModuleType | None) -> str:
    return version_text(getattr(module, "__version__", ""))


def _missing_module(spec: str, name: str, error: ModuleNotFoundError) -> ModelLoadError:
    parent, dot, _ = (error.name or name).rpartition(".")
    siblings = pkgutil.iter_modules(getattr(sys.modules.get(parent), "__path__", None) if dot else None)
    advice = did_you_mean(error.name or name, (f"{parent}{dot}{sibling.name}" for sibling in siblings))
    what = f"cannot be imported: {type(error).__name__}: {error}"
    return _error(spec, what, advice or "install it, or start where it can be imported")


def _attribute(spec: str, module: ModuleType, name: str) -> object:
    try:
        return getattr(module, name)
    except AttributeError as error:
        callables = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        what = f"cannot be used: AttributeError: {module.__name__} has no {name!r}"
        raise _error(spec, what, did_you_mean(name, callables) or f"it has: {_listed(callables)}") from error


def _installed(spec: str, name: str) -> Found:
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow to import, rarely needed

    known = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name not in known:
        advice = did_you_mean(name, (*known, "sim:")) or f"installed: {_listed(known)}"
        raise _error(spec, "is not installed", f"{advice}; {_FORMS}")
    with guarded("cannot be imported", spec, _IMPORT_ADVICE):
        thing = known[name].load()
        return Found(name, thing, _module_version(sys.modules.get(known[name].module)))


def _make_importable(folder: Path) -> None:
    """Append `folder` to the import path: last, so that it hides no installed package."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _error(spec: str, what: str, advice: str) -> ModelLoadError:
    return ModelLoadError(f"model {spec or repr(spec)} {what}", spec=spec, advice=advice)


_OPTIONAL = ("predict_batch", "warm_up", "close")


def adapt(found: object, *, name: str, spec: str, module_version: str = "") -> LoadedModel:
    """Return a model for the object `found`; a class is instantiated without arguments.

    Its version is its attribute `version`, else `module_version`.

    Raises `ModelLoadError`, or any exception of the class.
    """
    model = found() if inspect.isclass(found) else found
    predict: Any = getattr(model, "predict", model)
    hooks: dict[str, Any] = {hook: getattr(model, hook) for hook in _OPTIONAL if getattr(model, hook, None) is not None}
    for method, function in {"predict": predict, **hooks}.items():
        if reason := _unfit(function):
            raise _not_a_model(spec, f"{method} {reason}")
    if reason := _wrong_arguments(predict):
        raise _not_a_model(spec, reason)

    def version() -> str:
        try:
            return version_text(getattr(model, "version", "")) or module_version
        except Exception:  # noqa: BLE001  (a property of the user's; a model without a version works)
            return module_version

    bridge = Bridge(name)
    close = bridge.closing(hooks.pop("close", _nothing))
    hooks = {hook: bridge.synchronous(function) for hook, function in hooks.items()}
    return LoadedModel(name=name, spec=spec, predict=bridge.synchronous(predict), version=version, close=close, **hooks)


def _nothing() -> None:
    """Close a model without a `close`."""


def _unfit(function: Any) -> str:
    if not callable(function):
        return f"is not callable but {type(function).__name__}"
    return "is an async generator; a model returns one result" if is_async_generator(function) else ""


def _wrong_arguments(predict: Any) -> str:
    try:
        signature = inspect.signature(predict)
    except (TypeError, ValueError):
        return ""  # a C function without a signature: the first event shows whether it fits
    try:
        signature.bind({})
    except TypeError as error:
        return f"predict{signature} does not take the payload as its only argument ({error})"
    return ""


def _not_a_model(spec: str, reason: str) -> ModelLoadError:
    advice = "write def predict(payload) or async def predict(payload), or a class with that method"
    return ModelLoadError(f"model {spec} cannot be used: {reason}", spec=spec, advice=advice)


_ADVICE = "correct the model, or run with --debug for the trace"


def load(spec: str) -> LoadedModel:
    """Import and build the model that `spec` names, without its warm-up. Raises `ModelLoadError`."""
    if spec.startswith(SCHEME):
        return simulated(spec)
    found = find(spec)
    with guarded("cannot be built", spec, _ADVICE):
        return adapt(found.thing, name=found.name, spec=spec, module_version=found.version)


def warm_up(model: LoadedModel) -> None:
    """Run the model's warm-up. Raises `ModelLoadError` if it fails."""
    with guarded("failed its warm-up", model.spec, _ADVICE):
        model.warm_up()


_REMOTE = ("http://", "https://")
_ONNX = "onnx:"


def open_model(settings: ModelSettings, on_circuit: OnCircuit = lambda *_change: None) -> LoadedModel:
    """Build the model of `settings`, without its warm-up.

    `on_circuit` receives the states of the circuit breaker, if the model has one. Raises `ModelLoadError`, and
    `SettingsError` for settings that do not apply to the model.
    """
    model = _found(settings, on_circuit)
    if not settings.cache:
        return model

    entries, ttl_s = parse_capacity(settings.cache)
    return cached(model, entries=entries, ttl_s=ttl_s, ignore=settings.cache_ignore)


def is_remote(settings: ModelSettings) -> bool:
    """Return True if the model is a server."""
    return settings.spec.lower().startswith(_REMOTE)


def _found(settings: ModelSettings, on_circuit: OnCircuit) -> LoadedModel:
    spec = settings.spec
    if not spec.startswith(_ONNX):
        _refuse_providers(settings)
    if is_remote(settings):
        from infertool.models.server_protocols import open_remote  # noqa: PLC0415  (0.1 s to import)

        return open_remote(settings, on_circuit)
    if spec.startswith(_ONNX):
        from infertool.models.onnx import open_onnx  # noqa: PLC0415  (needs the extra, and 0.1 s)

        return open_onnx(settings)
    refuse_inputs(settings)
    return load(spec)


def _refuse_providers(settings: ModelSettings) -> None:
    for key, value in {"model.providers": settings.providers, "model.device_id": settings.device_id}.items():
        if value:
            what = f"{key} is for ONNX models, and {mask_url(settings.spec)} chooses its device itself"
            raise SettingsError(what, key=key, advice="leave it out; worker processes have --devices")


def describe_inputs(settings: ModelSettings) -> tuple[Described, ...]:
    """Return the inputs that a model describes itself, which an ONNX file does. Raises `ModelLoadError`."""
    if not settings.spec.startswith(_ONNX):
        return ()
    return open_model(replace(settings, providers=["cpu"], device_id=0)).inputs  # a GPU is for those who call it
