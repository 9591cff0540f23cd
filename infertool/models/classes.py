"""The outputs of a model, by name, as a result; those of a classifier as class and confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What scikit-learn's exports call them (skl2onnx, with and without a pipeline).
_LABELS = ("label", "output_label")
_PROBABILITIES = ("probabilities", "output_probability")


def as_results(columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Return the results of events, of which `columns` has the outputs by name.

    A label and its probabilities, as a map by class or as a list, become `{"class": ..., "confidence": ...}`.
    """
    for names in zip(_LABELS, _PROBABILITIES, strict=True):
        if columns.keys() == set(names):
            pairs = zip(*(columns[name] for name in names), strict=True)
            return [{"class": label, "confidence": _confidence(label, each)} for label, each in pairs]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _confidence(label: Any, probabilities: Any) -> Any:
    if isinstance(probabilities, dict):
        return probabilities[label]
    return max(probabilities) if isinstance(probabilities, list) else probabilities
