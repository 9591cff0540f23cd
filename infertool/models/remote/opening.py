"""Opens a model server: the protocol follows from the path of its address."""

from __future__ import annotations

from infertool.models.inputs import refuse_inputs
from infertool.models.port import LoadedModel, OnCircuit
from infertool.models.remote.breaker import Breaker
from infertool.models.remote.client import Client
from infertool.models.remote.endpoint import endpoint
from infertool.models.remote.plain import PlainModel
from infertool.models.remote.v2 import V2Model, is_v2
from infertool.settings.tree import ModelSettings


def open_remote(settings: ModelSettings, on_circuit: OnCircuit) -> LoadedModel:
    """Return the model behind `model.spec`; nothing is sent yet. Raises `ModelLoadError` and `SettingsError`."""
    address = endpoint(settings)
    client = Client(address.origin, settings)
    breaker = Breaker(
        address.shown, failures=settings.circuit_failures, wait_s=settings.circuit_wait_s, on_circuit=on_circuit
    )
    model: V2Model | PlainModel
    if is_v2(address.path):
        model = V2Model(client, breaker, address, settings)
    else:
        refuse_inputs(settings)
        model = PlainModel(client, breaker, address)
    return LoadedModel(
        name=address.shown,
        spec=address.shown,
        predict=model.predict,
        predict_batch=model.predict_batch,
        warm_up=model.warm_up,
        close=client.close,
    )
