"""Reads `sim:?min_ms=0&classes=A,B`: names, types and ranges, each error with the way out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from infertool.errors import ModelLoadError
from infertool.models.port import LoadedModel
from infertool.models.simulated import SimulatedModel
from infertool.nearest import did_you_mean

SCHEME = "sim:"


def simulated(spec: str) -> LoadedModel:
    """Build the reference model that `spec` describes. Raises `ModelLoadError`."""
    query = spec.removeprefix(SCHEME)
    if query and not query.startswith("?"):
        raise _error(spec, f"{query!r} is no parameter list", "write it like sim:?min_ms=0&max_ms=0")
    values = dict(_read(spec, name, text) for name, text in parse_qsl(query[1:], keep_blank_values=True))
    model = SimulatedModel(**values)
    _check(spec, model)
    return LoadedModel(name="sim", spec=spec, predict=model.predict)


def _read(spec: str, name: str, text: str) -> tuple[str, Any]:
    if name not in _READERS:
        known = f"known: {', '.join(_READERS)}"
        advice = " ".join(filter(None, (did_you_mean(name, _READERS), known)))
        raise _error(spec, f"unknown parameter {name!r}", advice)
    reader, expected = _READERS[name]
    try:
        return name, reader(text)
    except (ValueError, KeyError) as error:
        raise _error(spec, f"{name} is {text!r}", f"expected {expected}") from error


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(text)
    return value


def _rate(text: str) -> float:
    value = _number(text)
    if value > 1:
        raise ValueError(text)
    return value


def _flag(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not all(names):
        raise ValueError(text)
    return names


_MILLISECONDS = "milliseconds, 0 or more"
_RATE = "a number from 0 to 1"
_READERS: dict[str, tuple[Callable[[str], object], str]] = {
    "min_ms": (_number, _MILLISECONDS),
    "max_ms": (_number, _MILLISECONDS),
    "failure_rate": (_rate, _RATE),
    "retryable": (_flag, "true or false"),
    "classes": (_names, "names with commas between them"),
    "min_confidence": (_rate, _RATE),
    "max_confidence": (_rate, _RATE),
    "seed": (str, "any text"),
}


def _check(spec: str, model: SimulatedModel) -> None:
    for unit in ("ms", "confidence"):
        low, high = getattr(model, f"min_{unit}"), getattr(model, f"max_{unit}")
        if low > high:
            what = f"min_{unit}={low:g} is more than max_{unit}={high:g}"
            raise _error(spec, what, f"give both min_{unit} and max_{unit}")


def _error(spec: str, what: str, advice: str) -> ModelLoadError:
    return ModelLoadError(f"model {spec}: {what}", spec=spec, advice=advice)
