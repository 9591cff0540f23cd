"""Finds a model by its spec and makes it ready.

A spec is `sim:` with parameters, `package.module:callable`, `path/to/file.py:callable`, or a name from the entry
point group `infertool.models`. Modules are found in the working folder, too, and a file can import its neighbours.
"""

from __future__ import annotations

from infertool.models.adapt import adapt
from infertool.models.guard import guarded
from infertool.models.parameters import SCHEME, simulated
from infertool.models.port import LoadedModel
from infertool.models.sources import find

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
