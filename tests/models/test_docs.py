"""The example of docs/models.md is a model, and its tables say what the code says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from infertool import InferenceError
from infertool.models.loader import load, warm_up
from infertool.models.simulated import SimulatedModel

TEXT = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


def test_the_example_works(tmp_path):
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert code
    (tmp_path / "fraud.py").write_text(code[1])
    model = load(f"{tmp_path}/fraud.py:Fraud")
    warm_up(model)
    assert model.predict({"amount": 501})["class"] == "suspicious"
    assert model.predict({"amount": 1})["class"] == "fine"
    with pytest.raises(InferenceError) as caught:
        model.predict({})
    assert not caught.value.retryable
    model.close()


def test_every_parameter_is_documented():
    table = TEXT.partition("| parameter |")[2]
    assert set(re.findall(r"`(\w+)`", table.partition("\n\n")[0])) >= {field.name for field in fields(SimulatedModel)}


def test_every_spec_of_the_simulated_model_loads():
    for spec in re.findall(r"`(sim:[^`]*)`", TEXT):
        assert load(spec).name == "sim"
