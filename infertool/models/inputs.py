"""Reads the setting `model.inputs`: where in an event each input of a model is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from infertool.errors import SettingsError
from infertool.nearest import did_you_mean
from infertool.secret import mask_url
from infertool.settings.tree import ModelSettings


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the settings say of one input.

    `datatype` and `shape`, that of one event's value, are for a server that does not tell them.
    """

    at: str = msgspec.field(name="from", default="")
    datatype: str = ""
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if bool(self.datatype) != (self.shape is not None):
            raise ValueError("datatype and shape go together")

    def path(self, name: str) -> tuple[str, ...]:
        """Return the way into an event to the input called `name`: under its name, unless the settings say where."""
        return tuple(self.at.split(".")) if self.at else (name,)


def given(inputs: Mapping[str, Any]) -> dict[str, Given]:
    """Return the setting by input. Raises `SettingsError`."""
    return {name: _given(name, value) for name, value in inputs.items()}


def _given(name: str, value: Any) -> Given:
    try:
        return msgspec.convert({"from": value} if isinstance(value, str) else value, Given)
    except msgspec.ValidationError as error:
        advice = 'write "path.to.value", or {from = "path.to.value", datatype = "FP32", shape = [8]}'
        raise SettingsError(f"model.inputs.{name}: {error}", key="model.inputs", advice=advice) from None


def check_names(inputs: Iterable[str], known: Iterable[str]) -> None:
    """Raise `SettingsError` for a name that the model does not have."""
    names = list(known)
    for name in inputs:
        if name not in names:
            advice = did_you_mean(name, names) or f"it has: {', '.join(names)}"
            raise SettingsError(f"model.inputs.{name}: the model has no such input", key="model.inputs", advice=advice)


def refuse_inputs(settings: ModelSettings) -> None:
    """Raise `SettingsError` if `model.inputs` is set for a model that gets the whole event."""
    if settings.inputs:
        what = f"model.inputs is for ONNX and KServe models, and {mask_url(settings.spec)} gets the whole event"
        raise SettingsError(what, key="model.inputs", advice="leave it out")
