"""The outputs of a model, by name, as a result; those of a classifier as class and confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What scikit-learn's exports call them (skl2onnx, with and without a pipeline).
_LABELS = ("label", "output_label")
_PROBABILITIES = ("probabilities", "output_probability")


def as_result(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return one event's outputs.

    A label and its probabilities, as a map by class or as a list, become `{"class": ..., "confidence": ...}`.
    """
    for label, probabilities in zip(_LABELS, _PROBABILITIES, strict=True):
        if set(outputs) == {label, probabilities}:
            found = outputs[label]
            return {"class": found, "confidence": _confidence(found, outputs[probabilities])}
    return dict(outputs)


def _confidence(label: Any, probabilities: Any) -> Any:
    if isinstance(probabilities, Mapping):
        return probabilities[label]
    return max(probabilities) if isinstance(probabilities, list) else probabilities
