"""Every form of a model's spec, and every error before the first event."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from infertool.errors import ModelLoadError
from infertool.models.loader import load, open_model, warm_up
from infertool.settings import ModelSettings
from tests.conftest import FIXTURES
from tests.support.classifier import trained
from tests.support.present import present

MODELS = FIXTURES / "models"
EVENT = {"request_id": "r-1"}


def refusal(spec: str) -> str:
    with pytest.raises(ModelLoadError) as caught:
        warm_up(load(spec))
    assert caught.value.spec == spec
    assert caught.value.exit_code == 1
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_function_in_a_file() -> None:
    model = load(f"{MODELS}/echo.py:predict")
    assert model.predict(EVENT) == EVENT
    assert model.name == "echo:predict"
    assert model.predict_batch is None
    warm_up(model)
    model.close()


@pytest.mark.parametrize(
    ("source", "version"),
    [
        ("class M:\n  version = '2026.11'\n  def predict(self, payload): return payload", "2026.11"),
        ("class M:\n  version = 7\n  def predict(self, payload): return payload", "7"),
        ("class M:\n  def warm_up(self): self.version = 'warm'\n  def predict(self, payload): return payload", "warm"),
        ("__version__ = '3'\ndef M(payload): return payload", "3"),
        ("__version__ = '3'\nclass M:\n  version = '4'\n  def predict(self, payload): return payload", "4"),
        ("__version__ = '3'\nclass M:\n  def version(self): ...\n  def predict(self, payload): return payload", "3"),
        ("class M:\n  version = property(lambda self: 1 / 0)\n  def predict(self, payload): return payload", ""),
        ("class M:\n  version = ' a\\nb\\ud800' + 'x' * 500\n  def predict(self, payload): return payload", None),
        ("def M(payload): return payload", ""),
        ("__version__ = True\ndef M(payload): return payload", ""),
    ],
)
def test_the_version_is_that_of_the_model_or_of_its_module(tmp_path: Path, source: str, version: str | None) -> None:
    (tmp_path / "versioned.py").write_text(source)
    model = load(f"{tmp_path / 'versioned.py'}:M")
    warm_up(model)
    assert model.version() == ("a b?" + "x" * 96 if version is None else version)


def test_a_class_is_instantiated_and_its_hooks_are_kept() -> None:
    model = load(f"{MODELS}/counts.py:Counts")
    warm_up(model)
    counts = latest()
    assert (counts.warmed_up, counts.closed) == (1, 0)
    assert model.predict_batch is not None
    assert present(model.predict_batch)([EVENT, EVENT]) == [{"seen": 1}, {"seen": 2}]
    model.close()
    assert counts.closed == 1


def latest() -> Any:
    """Return the object of the model that was loaded last."""
    return sys.modules["infertool_model_counts"].Counts.latest


def test_loading_does_not_warm_up() -> None:
    load(f"{MODELS}/counts.py:Counts")
    assert latest().warmed_up == 0


def test_an_instance_is_used_as_it_is() -> None:
    model = load(f"{MODELS}/counts.py:instance")
    assert model.predict(EVENT) == {"seen": 1}
    assert sys.modules["infertool_model_counts"].instance.seen == 1


def test_a_module_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fraud").mkdir()
    (tmp_path / "fraud" / "model.py").write_text(
        "class Model:\n    def __call__(self, payload):\n        return 'ok'\n"
    )
    monkeypatch.chdir(tmp_path)
    model = load("fraud.model:Model")
    assert (model.name, model.predict(EVENT)) == ("fraud.model:Model", "ok")


def test_a_relative_path_and_a_home_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.py").write_text("def predict(payload):\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("m.py:predict").predict(EVENT) == 1
    assert load("~/m.py:predict").predict(EVENT) == 1


def test_a_file_imports_its_neighbour() -> None:
    assert load(f"{MODELS}/neighbour.py:predict").predict(EVENT) == EVENT


def test_the_model_folder_hides_no_installed_package(tmp_path: Path) -> None:
    (tmp_path / "stomp.py").write_text("raise RuntimeError('this is not stomp.py')")
    (tmp_path / "m.py").write_text("import stomp\n\ndef predict(payload):\n    return stomp.__name__\n")
    assert load(f"{tmp_path}/m.py:predict").predict(EVENT) == "stomp"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints([EntryPoint("fraud", "json:dumps", "infertool.models")])
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: points.select(group=group))


@pytest.mark.parametrize("spec", ["fraud", "fraud:"])
def test_an_entry_point(installed: None, spec: str) -> None:
    model = load(spec)
    assert (model.name, model.spec, model.predict({"a": 1})) == ("fraud", spec, '{"a": 1}')


def test_an_unknown_entry_point_names_the_nearest(installed: None) -> None:
    assert "did you mean 'fraud'?" in refusal("frued")


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        ("generator", "async generator"),
        ("GeneratorPredict", "predict is an async generator"),
        ("ClosedByText", "close is not callable but str"),
        ("NoPredict", "not callable but NoPredict"),
        ("number", "not callable but int"),
        ("no_arguments", "does not take the payload"),
        ("two_arguments", "threshold"),
        ("generater", "did you mean 'generator'?"),
        ("zzz", "it has:"),
    ],
)
def test_unfit_objects_are_refused_with_the_reason(thing: str, reason: str) -> None:
    assert reason in refusal(f"{MODELS}/unfit.py:{thing}")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("import_error.py:predict", "ModuleNotFoundError: No module named 'no_such_package_anywhere'"),
        ("import_exits.py:predict", "SystemExit: no licence found"),
        ("constructor_failure.py:Model", "OSError: weights.bin: no such file"),
        ("constructor_failure.py:NeedsArguments", "missing 1 required positional argument: 'path'"),
        ("warm_up_failure.py:Model", "failed its warm-up: RuntimeError: weights.bin: checksum mismatch"),
        ("noopp.py:predict", "did you mean 'noop.py'?"),
        ("noop.py", "noop.py:callable"),
        ("noop.py:", "noop.py:callable"),
    ],
)
def test_files_that_fail_name_the_original_error(spec: str, reason: str) -> None:
    assert reason in refusal(f"{MODELS}/{spec}")


@pytest.mark.parametrize("spec", ["~no-such-user/m.py:predict", "onnx:~no-such-user/m.onnx", f"{'x' * 500}.py:f"])
def test_a_file_of_an_unknown_user_or_with_a_name_too_long_is_not_there(spec: str) -> None:
    with pytest.raises(ModelLoadError, match=r"no file .*(~no-such-user|xxx)"):
        open_model(ModelSettings(spec=spec))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def predict(payload:\n", "SyntaxError"),
        ("x = '\ud800'", "SyntaxError"),
        ("raise BaseException", "BaseException;"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines;"),
        ("raise ValueError('x' * 10_000)", "xxx..."),
    ],
)
def test_what_an_import_raises_is_one_short_line(tmp_path: Path, source: str, reason: str) -> None:
    file = tmp_path / "broken.py"
    file.write_bytes(source.encode("utf-8", "surrogatepass"))
    text = refusal(f"{file}:predict")
    assert reason in text
    assert len(text) < 1000


def test_ctrl_c_during_an_import_is_no_load_error(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load(f"{tmp_path}/m.py:predict")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("jsn:loads", "No module named 'jsn'; did you mean 'json'?"),
        ("json.decder:x", "did you mean 'json.decoder'?"),
        ("json:lods", "did you mean 'loads'?"),
        ("no_such_module_qqq:x", "install it"),
        ("sim", "did you mean 'sim:'?"),
        ("", "model '' is not installed"),
        (":x", "is not installed"),
        (".relative:x", "cannot be imported"),
        ("nothing-of-that-name", "package.module:callable"),
    ],
)
def test_specs_that_lead_nowhere(spec: str, reason: str) -> None:
    assert reason in refusal(spec)


def test_a_module_whose_own_import_fails_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outer_module.py").write_text("import no_such_package_anywhere")
    monkeypatch.chdir(tmp_path)
    assert "No module named 'no_such_package_anywhere'; correct the module" in refusal("outer_module:predict")


def test_the_cause_is_kept_for_the_trace() -> None:
    with pytest.raises(ModelLoadError) as caught:
        load(f"{MODELS}/constructor_failure.py:Model")
    assert isinstance(caught.value.__cause__, OSError)


def test_every_model_fixture_is_used_or_loads() -> None:
    failing = {"import_error.py", "import_exits.py", "constructor_failure.py", "warm_up_failure.py", "unfit.py"}
    classes = {
        "awaits.py": "Does", "batched.py": "Batched", "counts.py": "Counts", "holds.py": "Holds",
        "misbehaves.py": "Misbehaves", "quick.py": "Quick", "sklearn_file.py": "Classifier", "strange.py": "Strange",
        "torch_encoder.py": "Encoder", "waits.py": "Waits",
    }  # fmt: skip
    for file in sorted(Path(MODELS).glob("*.py")):
        if file.name not in failing:
            assert callable(load(f"{file}:{classes.get(file.name, 'predict')}").predict)


def test_a_scikit_learn_model_behind_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLASSIFIER", str(tmp_path / "classifier.joblib"))
    trained(tmp_path / "classifier.joblib", [[0, 0], [0, 1], [1, 0], [1, 1]], ["low", "low", "high", "high"])
    model = load(f"{MODELS}/sklearn_file.py:Classifier")
    warm_up(model)
    assert model.predict({"features": [5, 0]})["class"] == "high"
    low, unfit, high = present(model.predict_batch)([{"features": [-5, 0]}, {}, {"features": [5, 1]}])
    assert (low["class"], high["class"]) == ("low", "high")
    assert 0.9 < high["confidence"] <= 1
    assert str(unfit) == "the event has 0 features"
