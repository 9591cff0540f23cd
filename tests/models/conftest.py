"""Loading a model changes what can be imported: each test starts afresh."""

from __future__ import annotations

import sys

import onnxruntime  # noqa: F401  (loaded for good: numpy, which it needs, cannot be loaded twice)
import pytest


@pytest.fixture(autouse=True)
def unchanged_imports(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]
