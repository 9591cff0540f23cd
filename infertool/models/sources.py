"""Follows a spec to the object it names: in a file, in a module, or behind an entry point."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from infertool.errors import ModelLoadError
from infertool.models.guard import guarded
from infertool.text.nearest import did_you_mean

ENTRY_POINTS = "infertool.models"

_FORMS = "a model is sim:, package.module:callable, path/to/file.py:callable, or an installed name"
_IMPORT_ADVICE = "correct the module, or run with --debug for the trace"


@dataclass(frozen=True, slots=True)
class Found:
    """What a spec names. `name` is for people and holds no folder of this machine."""

    name: str
    thing: object


def find(spec: str) -> Found:
    """Import what `spec` names. Raises `ModelLoadError`."""
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
    path = path.expanduser().resolve()
    if not path.is_file():
        neighbours = (other.name for other in path.parent.glob("*.py"))
        raise _error(spec, f"cannot be imported: no file {path}", did_you_mean(path.name, neighbours))
    _make_importable(path.parent)
    with guarded("cannot be imported", spec, _IMPORT_ADVICE):
        module = _run_file(path)
    return Found(f"{path.stem}:{attribute}", _attribute(spec, module, attribute))


def _run_file(path: Path) -> ModuleType:
    name = f"infertool_model_{path.stem}"
    file_spec = importlib.util.spec_from_file_location(name, path)
    if file_spec is None or file_spec.loader is None:
        raise ImportError(f"{path} is no Python source file")
    module = importlib.util.module_from_spec(file_spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up here
    file_spec.loader.exec_module(module)
    return module


def _in_module(spec: str, name: str, attribute: str) -> Found:
    _make_importable(Path.cwd())
    with guarded("cannot be imported", spec, _IMPORT_ADVICE):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there; one that it imports is not
            raise _missing_module(spec, name, error) from error
    return Found(spec, _attribute(spec, module, attribute))


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
        return Found(name, known[name].load())


def _make_importable(folder: Path) -> None:
    """Let imports find `folder`, last, so that nothing in it hides an installed package."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _error(spec: str, what: str, advice: str) -> ModelLoadError:
    return ModelLoadError(f"model {spec or repr(spec)} {what}", spec=spec, advice=advice)
