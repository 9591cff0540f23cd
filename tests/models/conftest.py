"""Loading a model changes the import path: each test starts with a clean one."""

from __future__ import annotations

import sys

import pytest

import infertool.models.onnx
import infertool.models.server_protocols

# Loaded for good: numpy cannot be loaded twice, and what catches an error must be as old as what raises it.
__all__ = ["infertool"]


@pytest.fixture(autouse=True)
def unchanged_imports(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]
