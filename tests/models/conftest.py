"""Loading a model changes the import path: each test starts with a clean one. Model servers, and models behind them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import infertool.models.onnx
import infertool.models.server_protocols
from infertool.models.loader import open_model, warm_up
from infertool.models.port import LoadedModel
from infertool.settings import ModelSettings
from tests.support.modelserver import ModelServer

# Loaded for good: what catches an error must be as old as what raises it.
__all__ = ["infertool"]


@pytest.fixture(autouse=True)
def unchanged_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        # What is installed stays: numpy and its like cannot be loaded twice.
        if "site-packages" not in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    running = ModelServer().start()
    yield running
    running.stop()


@pytest.fixture
def opened() -> Iterator[Callable[..., LoadedModel]]:
    models = []

    def open_it(url: str, **settings: Any) -> LoadedModel:
        patient = {"circuit_failures": 1000, **settings}
        models.append(open_model(ModelSettings(spec=url, **patient)))
        warm_up(models[-1])
        return models[-1]

    yield open_it
    for model in models:
        model.close()
