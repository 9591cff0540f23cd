"""The example of docs/models.md is a model, and its tables agree with the code."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest

from infertool import InferenceError
from infertool.models import server_client
from infertool.models.loader import load, open_model, warm_up
from infertool.models.simulated import SimulatedModel
from infertool.settings import ModelSettings
from tests.settings.test_load import empty_folder, settings
from tests.support.classifier import trained
from tests.support.modelserver import ModelServer, answer

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "models.md").read_text()

__all__ = ["empty_folder"]


def test_the_example_works(tmp_path: Path) -> None:
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


def test_every_parameter_is_documented() -> None:
    table = TEXT.partition("| parameter |")[2]
    assert set(re.findall(r"`(\w+)`", table.partition("\n\n")[0])) >= {field.name for field in fields(SimulatedModel)}


def test_every_spec_of_the_simulated_model_loads() -> None:
    for spec in re.findall(r"`(sim:[^`]*)`", TEXT):
        assert load(spec).name == "sim"


def test_the_async_example_works(tmp_path: Path) -> None:
    code = re.search(r"```python\n(# answers.py\n.*?)```", TEXT, re.DOTALL)
    assert code
    server = ModelServer(lambda request: answer({"text": request.json["prompt"].upper()})).start()
    own = code[1].replace("http://127.0.0.1:8000", f"http://127.0.0.1:{server.port}")
    assert own != code[1]
    (tmp_path / "answers.py").write_text(own)
    model = load(f"{tmp_path}/answers.py:Answers")
    warm_up(model)
    try:
        assert model.predict({"text": "hello"}) == {"text": "HELLO"}
        assert server.requests[0].path == "/v1/completions"
    finally:
        model.close()
        server.stop()


def test_the_scikit_learn_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(# classifier.py\n.*?)```", TEXT, re.DOTALL)
    assert code
    (tmp_path / "classifier.py").write_text(code[1])
    monkeypatch.chdir(tmp_path)
    trained(tmp_path / "classifier.joblib", [[0], [1]], ["low", "high"])
    model = load("classifier.py:Classifier")
    warm_up(model)
    assert model.predict({"features": [9]})["class"] == "high"


def test_the_reference_model_says_what_the_example_shows() -> None:
    shown = re.search(r'"prediction":(\{"class".*?\})', TEXT)
    assert shown
    model = open_model(ModelSettings(spec=f"onnx:{ROOT}/fixtures/models/reference.onnx"))
    result = model.predict(json.loads((ROOT / "fixtures" / "events" / "reference.json").read_bytes()))
    assert json.loads(shown[1]) == {"class": result["class"], "confidence": pytest.approx(result["confidence"], 1e-5)}


def test_the_settings_of_the_examples_are_settings(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    for example in re.findall(r"^( *)```toml\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE):
        toml = textwrap.dedent(example[1]).replace("/run/secrets/model-token", str(tmp_path / "token"))
        if "entry-points" not in toml:
            assert settings(toml).settings.model != ModelSettings()


def test_what_statuses_mean_is_documented() -> None:
    table = TEXT.partition("| what the server does |")[2].partition("\n\n")[0]
    documented = {int(number) for number in re.findall(r"\b\d{3}\b", table)}
    assert documented == {int(status) for status in server_client._UNAVAILABLE} | {500}
