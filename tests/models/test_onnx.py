"""ONNX files: the trained fixture, all kinds of inputs and outputs, and events that do not fit."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy import dtype, ndarray

from infertool.errors import InferenceError, InfertoolError, ModelLoadError, SettingsError
from infertool.models import onnx_providers
from infertool.models.batch_results import WrongResultsError
from infertool.models.loader import open_model
from infertool.models.port import LoadedModel
from infertool.models.tensors import Input, nested
from infertool.settings import ModelSettings
from tests.conftest import FIXTURES
from tests.support.present import present

REFERENCE = FIXTURES / "models" / "reference.onnx"
FEATURES = [0.12, -1.07, 0.88, 2.41, -0.33, 0.05, 1.96, -0.71]


def model(name: str = "", **inputs: object) -> LoadedModel:
    path = FIXTURES / "models" / "onnx" / f"{name}.onnx" if name else REFERENCE
    return open_model(ModelSettings(spec=f"onnx:{path}", inputs=inputs))


def failure(opened: LoadedModel, payload: dict[str, Any]) -> str:
    with pytest.raises(InferenceError) as caught:
        opened.predict(payload)
    assert not caught.value.retryable
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refusal(spec: str, **inputs: object) -> str:
    with pytest.raises(InfertoolError) as caught:
        open_model(ModelSettings(spec=spec, inputs=inputs))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_reference_model_classifies_the_reference_event() -> None:
    opened = model()
    result = opened.predict(json.loads((FIXTURES / "events" / "reference.json").read_bytes()))
    assert opened.name == "onnx:reference.onnx"
    assert result["class"] == "C"
    assert 0.9 < result["confidence"] <= 1
    assert set(result) == {"class", "confidence"}


def field(number: int, content: bytes) -> bytes:
    """Return a field of bytes, as protocol buffers write it."""
    return bytes([number << 3 | 2, len(content)]) + content


@pytest.mark.parametrize(
    ("appended", "version"),
    [
        (b"", ""),
        (b"\x28\x07", "7"),  # model_version
        (b"\x28\x07" + field(14, field(1, b"model_version") + field(2, b"2026-11")), "2026-11"),  # metadata_props
    ],
)
def test_the_version_is_that_of_the_file(tmp_path: Path, appended: bytes, version: str) -> None:
    path = tmp_path / "versioned.onnx"
    # What follows in protocol buffers replaces what was there.
    path.write_bytes(REFERENCE.read_bytes() + appended)
    assert open_model(ModelSettings(spec=f"onnx:{path}")).version() == version


def test_a_batch_gives_what_one_by_one_gives_and_unfit_events_fail_alone() -> None:
    opened = model()
    fit = [{"features": [value + shift for value in FEATURES]} for shift in (-2, -1, 0, 1)]
    first, unfit, *others = present(opened.predict_batch)([fit[0], {"features": [1, 2]}, *fit[1:]])
    for one, together in zip(map(opened.predict, fit), [first, *others], strict=True):
        assert one["class"] == together["class"]
        assert one["confidence"] == pytest.approx(together["confidence"], rel=1e-5)
    assert isinstance(unfit, InferenceError)
    assert str(unfit) == "input 'features': takes shape [8], the event has [2]"
    assert isinstance(present(opened.predict_batch)([{}])[0], InferenceError)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (None, "takes numbers, and the event has something else in []"),
        ("12345678", "something else in []"),
        ([*FEATURES[:7], None], "something else in [8]"),
        ([*FEATURES[:7], "1.5"], "something else in [8]"),
        ([*FEATURES[:7], True], "something else in [8]"),
        ([*FEATURES[:7], [1]], "something else in [8]"),
        ([FEATURES], "takes shape [8], the event has [1, 8]"),
        ([[1], [1, 2]], "lists are of different lengths below [2]"),
        ([], "takes shape [8], the event has [0]"),
        ([*FEATURES[:7], 1e300], "a number is too large for float32"),
        ([*FEATURES[:7], 10**400], "a number is too large for float32"),
    ],
)
def test_an_event_that_does_not_fit_is_refused_with_input_and_shape(features: Any, words: str) -> None:
    text = failure(model(), {"features": features})
    assert "input 'features'" in text
    assert words in text


def test_the_setting_says_where_inputs_are() -> None:
    event = {"order": {"vector": FEATURES}, "a.b": FEATURES}
    assert model(features="order.vector").predict(event) == model().predict({"features": FEATURES})
    assert model(features={"from": "order.vector"}).predict(event)["class"] == "C"
    assert "the event has no 'order.vector'" in failure(model(features="order.vector"), {"order": [1]})


def test_probabilities_in_a_tensor_and_classes_that_are_numbers() -> None:
    opened = model("numbered", X="features")
    sure, other = present(opened.predict_batch)([{"features": [3, 0, 0]}, {"features": [-3, 0, 0]}])
    assert (sure["class"], other["class"]) == (1, 0)
    assert sure["confidence"] > 0.9
    assert opened.predict({"features": [3, 0, 0]})["class"] == 1


def test_inputs_of_several_types_and_single_values() -> None:
    opened = model("mixed")
    events = [{"amount": 2.5, "count": 4, "tags": ["a", "ß"]}, {"amount": [3], "count": [1], "tags": ["b", ""]}]
    wanted = [{"total": 10.0, "same_tags": ["a", "ß"]}, {"total": 3.0, "same_tags": ["b", ""]}]
    assert present(opened.predict_batch)(events) == wanted
    assert opened.predict(events[0]) == wanted[0]
    json.dumps(opened.predict(events[0]))
    assert "input 'count': takes whole numbers" in failure(opened, {**events[0], "count": 4.5})
    assert "input 'count': a number is too large for int32" in failure(opened, {**events[0], "count": 2**31})
    assert "input 'tags': takes shape [2], the event has []" in failure(opened, {**events[0], "tags": "a"})


def test_a_model_without_a_batch_axis_takes_one_event_at_a_time() -> None:
    opened = model("fixed")
    assert opened.predict_batch is None
    assert opened.predict({"window": [1, 2, 3, 6]}) == {"mean": 3.0}


def test_what_only_the_model_notices_is_the_events_fault() -> None:
    opened = model("open")
    assert opened.predict({"values": [1, 2, 3]}) == {"doubled": [2.0, 4.0, 6.0]}
    assert "fails with values [1, 2]" in failure(opened, {"values": [1, 2]})


def test_sizes_that_differ_in_a_batch() -> None:
    opened = model("ragged")
    events = [{"values": [1.0] * size} for size in (1, 3, 2)]
    assert present(opened.predict_batch)(events) == [{"sum": 1.0}, {"sum": 3.0}, {"sum": 2.0}]


def test_an_output_that_is_not_one_for_each_event_is_for_single_events_only() -> None:
    opened = model("total")
    assert opened.predict({"values": [1, 2]}) == {"total": 3.0}
    with pytest.raises(InferenceError, match="output 'total' is not one for each of 2 events"):
        present(opened.predict_batch)([{"values": [1, 2]}, {"values": [3, 4]}])


@pytest.mark.parametrize("count", [2, 3, 4])
def test_an_output_whose_size_is_fixed_is_not_cut(count: int) -> None:
    opened = model("constant")
    assert opened.predict({"values": [1, 2]}) == {"same": [1.0, 2.0], "weights": [10.0, 20.0, 30.0]}
    with pytest.raises(WrongResultsError, match=f"output 'weights' is not one for each of {count} events"):
        present(opened.predict_batch)([{"values": [1, 2]}] * count)


def test_many_threads_share_a_session() -> None:
    opened = model()
    wanted = opened.predict({"features": FEATURES})
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.extend(opened.predict({"features": FEATURES}) for _ in range(200)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [wanted] * 1600


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("onnx:", "no file"),
        (f"onnx:{FIXTURES}/models/referense.onnx", "did you mean 'reference.onnx'?"),
        (f"onnx:{FIXTURES}/models/echo.py", "cannot be loaded: InvalidProtobuf"),
        (f"onnx:{FIXTURES}/models", "no file"),
    ],
)
def test_files_that_are_no_model(spec: str, words: str) -> None:
    assert words in refusal(spec)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"feature": "x"}, "model.inputs.feature: the model has no such input; did you mean 'features'?"),
        ({"features": 1}, 'write "path.to.value"'),
        ({"features": {"form": "x"}}, "model.inputs.features"),
        ({"features": {"from": "x", "datatype": "FP32", "shape": [8]}}, "contains type and shape"),
        ({"features": {"from": "x", "datatype": "FP32"}}, "datatype and shape go together"),
    ],
)
def test_inputs_that_cannot_be(inputs: dict[str, Any], words: str) -> None:
    assert words in refusal(f"onnx:{REFERENCE}", **inputs)


def test_inputs_are_not_for_models_that_get_the_whole_event() -> None:
    for spec in ("sim:", "http://h/predict"):
        assert f"{spec} gets the whole event" in refusal(spec, X="x")


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('No module named onnxruntime')")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from infertool.models.loader import open_model\n"
        "from infertool.settings import ModelSettings\n"
        "try: open_model(ModelSettings(spec='onnx:m.onnx'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ModelLoadError ONNX models need onnxruntime: ")
    assert "pip install 'infertool[onnx]'" in done.stdout


@given(
    arrays(st.sampled_from([np.int64, np.float64]), array_shapes(max_dims=4, max_side=4), elements=st.integers(0, 9))
)
def test_values_are_measured_as_numpy_does(array: ndarray[tuple[Any, ...], dtype[Any]]) -> None:
    read = Input("X", ("X",), "float", array.shape).read({"X": array.tolist()})
    assert read.shape == array.shape
    assert read.elements == array.ravel().tolist()
    assert nested(read.elements, array.shape) == (array.item() if array.size == 1 else array.tolist())
    with pytest.raises(InferenceError, match="takes shape"):
        Input("X", ("X",), "float", (*array.shape, 2)).read({"X": array.tolist()})


EVENTS: dict[str, list[dict[str, Any]]] = {
    "": [{"features": FEATURES}, {"features": [1] * 8}],
    "fixed": [{"window": [1, 2, 3, 6]}],
    "mixed": [{"amount": 2.5, "count": 4, "tags": ["a", "ß"]}, {"amount": 3, "count": 1, "tags": ["b", ""]}],
    "numbered": [{"X": [3, 0, 0]}, {"X": [-3, 0, 0]}],
    "open": [{"values": [1, 2, 3]}, {"values": [4, 5, 6]}],
    "ragged": [{"values": [1.0]}, {"values": [1.0, 2.0, 3.0]}],
    "total": [{"values": [1, 2]}],
}


@pytest.mark.parametrize("name", EVENTS)
def test_tensors_in_the_memory_of_a_device_give_the_same_results(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = model(name)
    expected = list(map(plain.predict, EVENTS[name]))
    together = present(plain.predict_batch)(EVENTS[name]) if plain.predict_batch else []
    # The same calls as for a GPU; the only device here is the CPU.
    for provider in onnxruntime.get_available_providers():
        monkeypatch.setitem(onnx_providers.BOUND, provider, "cpu")
    bound = model(name)
    if name not in {"", "mixed"}:  # those have texts and maps, which stay where they are
        monkeypatch.delattr(onnxruntime.InferenceSession.__mro__[1], "run")
    assert list(map(bound.predict, EVENTS[name])) == expected
    if bound.predict_batch:
        assert present(bound.predict_batch)(EVENTS[name]) == together


@pytest.mark.parametrize("providers", [["cpu"], ["CPU"], ["CPUExecutionProvider"], ["cpu", "cpu"], []])
def test_providers_are_named_as_one_likes(providers: list[str]) -> None:
    opened = open_model(ModelSettings(spec=f"onnx:{REFERENCE}", providers=providers))
    assert opened.predict({"features": FEATURES})["class"] in "ABC"


@pytest.mark.parametrize(
    ("providers", "device_id", "text"),
    [
        (["cuda"], 0, "has no CUDAExecutionProvider, only "),
        (["tensorrt", "cuda"], 1, "has no TensorrtExecutionProvider"),
        (["cud"], 0, "did you mean 'cuda'?"),
        (["abacus"], 0, "'abacus' is no provider of onnxruntime"),
        (["cpu"], 1, "model.device_id is 1, and"),
        ([], 1, "runs on the CPU"),
    ],
)
def test_providers_that_are_not_there_are_refused(providers: list[str], device_id: int, text: str) -> None:
    with pytest.raises(InfertoolError) as caught:
        open_model(ModelSettings(spec=f"onnx:{REFERENCE}", providers=providers, device_id=device_id))
    assert text in str(caught.value)


@pytest.mark.parametrize("spec", ["sim:", "http://127.0.0.1:1/predict", f"{FIXTURES}/models/echo.py:predict"])
@pytest.mark.parametrize("setting", [{"providers": ["cpu"]}, {"device_id": 1}])
def test_providers_are_for_onnx_models(spec: str, setting: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="is for ONNX models"):
        open_model(ModelSettings(spec=spec, **setting))


class Session:
    """A session that fell back: onnxruntime does not say so itself."""

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


def test_a_provider_that_onnxruntime_leaves_out_is_an_error_if_it_was_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    onnx_providers.check_used(Session(), asked[1:], ModelSettings(spec="onnx:m.onnx", providers=["cpu"]))
    assert not caplog.text
    onnx_providers.check_used(Session(), asked, ModelSettings(spec="onnx:m.onnx"))
    assert "runs without CUDAExecutionProvider" in caplog.text
    with pytest.raises(ModelLoadError, match="CUDAExecutionProvider cannot be used"):
        onnx_providers.check_used(Session(), asked, ModelSettings(spec="onnx:m.onnx", providers=["cuda"]))
