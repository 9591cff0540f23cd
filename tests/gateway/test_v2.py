"""The v2 protocol: requests to payloads, results to responses, and what is refused; and our own client as a peer."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from infertool.gateway import v2
from infertool.gateway.v2 import Model, V2Error
from infertool.models.circuit_breaker import Breaker
from infertool.models.server_client import endpoint
from infertool.models.server_protocols import V2Model
from infertool.models.tensors import Described, InputSetting
from infertool.settings import ModelSettings

UNKNOWN = Model("m")
MATRIX = Model("m", inputs=(Described("X", ("X",), "FP32", (2, 3)),))
ROWS = Model("m", inputs=(Described("X", ("X",), "FP32", (None, 2)),))
NESTED = Model("m", settings={"X": InputSetting(at="order.features"), "n": InputSetting(at="order.n")})


def tensor(name: str, datatype: str, shape: list[int], data: Any = None, **parameters: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    if data is not None:
        found["data"] = data
    return found | ({"parameters": parameters} if parameters else {})


def body(*inputs: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({"inputs": inputs, **members}).encode()


@pytest.mark.parametrize(
    ("model", "inputs", "payloads"),
    [
        (UNKNOWN, [tensor("X", "FP32", [1, 2], [1, 2.5])], [{"X": [1, 2.5]}]),
        (UNKNOWN, [tensor("X", "FP32", [2, 2], [[1, 2], [3, 4]])], [{"X": [1, 2]}, {"X": [3, 4]}]),
        (UNKNOWN, [tensor("X", "INT8", [2, 1], [-128, 127]), tensor("s", "BYTES", [2], ["a", "ü"])],
         [{"X": -128, "s": "a"}, {"X": 127, "s": "ü"}]),
        (UNKNOWN, [tensor("X", "BOOL", [1, 2, 2], [True, False, True, True])], [{"X": [[True, False], [True, True]]}]),
        (UNKNOWN, [tensor("a", "INT64", [2], [1, 2]), tensor("b", "INT64", [3], [1, 2, 3])],
         [{"a": [1, 2], "b": [1, 2, 3]}]),
        (UNKNOWN, [tensor("a", "INT64", [], [7])], [{"a": 7}]),
        (UNKNOWN, [tensor("x.y", "UINT64", [1], [2**64 - 1])], [{"x.y": 2**64 - 1}]),
        (NESTED, [tensor("X", "FP64", [1, 1], [0.5]), tensor("n", "INT32", [1], [3])],
         [{"order": {"features": 0.5, "n": 3}}]),
        (MATRIX, [tensor("X", "FP32", [2, 3], [1, 2, 3, 4, 5, 6])], [{"X": [[1, 2, 3], [4, 5, 6]]}]),
        (ROWS, [tensor("X", "FP32", [1, 2], [1, 2])], [{"X": [1, 2]}]),
    ],
)  # fmt: skip
def test_a_request_becomes_a_payload_for_each_row(
    model: Model, inputs: list[dict[str, Any]], payloads: list[object]
) -> None:
    assert v2.read(body(*inputs), None, model).payloads == payloads


@pytest.mark.parametrize(
    ("results", "outputs"),
    [
        ([{"class": "A", "confidence": 0.5}, {"class": "B", "confidence": 1}],
         [("class", "BYTES", [2], ["A", "B"]), ("confidence", "FP64", [2], [0.5, 1])]),
        ([[1, 2], [3, 4]], [("output", "INT64", [2, 2], [1, 2, 3, 4])]),
        ([True], [("output", "BOOL", [1], [True])]),
        ([None, 1.5], [("output", "BYTES", [2], ["null", "1.5"])]),
        ([{"a": 1}, {"b": 1}], [("output", "BYTES", [2], ['{"a":1}', '{"b":1}'])]),
        ([{"a": {"deep": [1]}}], [("a", "BYTES", [1], ['{"deep":[1]}'])]),
        ([{"a": [[1], [2, 3]]}], [("a", "BYTES", [1], ["[[1],[2,3]]"])]),
        ([{}], [("output", "BYTES", [1], ["{}"])]),
        ([2**63], [("output", "UINT64", [1], [2**63])]),
        ([2**64], [("output", "BYTES", [1], ["18446744073709551616"])]),
        ([[0.5, 2**63]], [("output", "FP64", [1, 2], [0.5, 2**63])]),
        ([{"a": [0.5, 2**64]}], [("a", "BYTES", [1], ["[0.5,18446744073709551616]"])]),
        ([[]], [("output", "BYTES", [1], ["[]"])]),
    ],
)  # fmt: skip
def test_results_become_outputs(results: list[Any], outputs: list[tuple[object, ...]]) -> None:
    request = v2.read(body(tensor("X", "FP32", [len(results)], [0] * len(results)), id="r-1"), None, UNKNOWN)
    document = json.loads(v2.response(request, results, UNKNOWN))
    assert (document["model_name"], document["model_version"], document["id"]) == ("m", "1", "r-1")
    assert [tuple(each.values()) for each in document["outputs"]] == outputs


def test_without_a_batch_axis_the_value_has_its_own_shape() -> None:
    request = v2.read(body(tensor("X", "FP32", [2, 3], [0] * 6)), None, MATRIX)
    assert json.loads(v2.response(request, [{"y": [[1.5], [2]], "n": 3}], MATRIX))["outputs"] == [
        {"name": "y", "datatype": "FP64", "shape": [2, 1], "data": [1.5, 2]},
        {"name": "n", "datatype": "INT64", "shape": [1], "data": [3]},
    ]


def test_only_the_outputs_that_are_asked_for() -> None:
    request = v2.read(body(tensor("X", "INT8", [1], [0]), outputs=[{"name": "b"}]), None, UNKNOWN)
    assert [each["name"] for each in json.loads(v2.response(request, [{"a": 1, "b": 2}], UNKNOWN))["outputs"]] == ["b"]
    with pytest.raises(V2Error, match="no output 'b'; it has: a"):
        v2.response(request, [{"a": 1}], UNKNOWN)


@pytest.mark.parametrize(
    ("datatype", "raw", "elements"),
    [
        ("FP32", struct.pack("<2f", 0.5, -2), [0.5, -2.0]),
        ("FP16", np.array([0.5, -2], np.float16).tobytes(), [0.5, -2.0]),
        ("BF16", struct.pack("<2f", 0.5, -2)[2:4] + struct.pack("<f", -2)[2:], [0.5, -2.0]),
        ("FP64", struct.pack("<2d", 0.1, 1e300), [0.1, 1e300]),
        ("INT64", struct.pack("<2q", -(2**63), 1), [-(2**63), 1]),
        ("UINT8", b"\x00\xff", [0, 255]),
        ("BOOL", b"\x00\x01", [False, True]),
        ("BYTES", b"\x01\x00\x00\x00a\x02\x00\x00\x00\xc3\xbc", ["a", "ü"]),
    ],
)
def test_raw_elements_follow_the_json(datatype: str, raw: bytes, elements: list[object]) -> None:
    text = body(tensor("first", datatype, [2], binary_data_size=len(raw)), tensor("second", "INT8", [2], [1, 2]))
    request = v2.read(text + raw, str(len(text)), UNKNOWN)
    assert [each["first"] for each in request.payloads] == elements
    assert [each["second"] for each in request.payloads] == [1, 2]


@pytest.mark.parametrize(("datatype", "kind"), [("INT8", np.int8), ("FP32", np.float32), ("UINT64", np.uint64)])
def test_many_raw_elements_are_all_read(datatype: str, kind: Any) -> None:
    count = 100_001
    given: Any = (np.arange(count) % 100).astype(kind)
    text = body(tensor("X", datatype, [1, count], binary_data_size=given.nbytes))
    [payload] = v2.read(text + given.tobytes(), str(len(text)), UNKNOWN).payloads
    assert payload["X"] == given.tolist()


RAW = tensor("X", "FP32", [1], binary_data_size=4)


@pytest.mark.parametrize(
    ("text", "raw", "told"),
    [
        (b"{", None, "truncated"),
        (b"[]", None, "Expected `object`"),
        (body(), None, "has inputs"),
        (body(tensor("X", "FP32", [1], [1]), tensor("X", "FP32", [1], [1])), None, "a name of its own"),
        (body(tensor("X", "FLOAT", [1], [1])), None, "'FLOAT' is none of FP16"),
        (body(tensor("X", "FP32", [-1], [1])), None, "a size below 0"),
        (body(tensor("X", "FP32", [2], [[1], None])), None, r"different lengths below \[2\]"),
        (body(tensor("X", "BYTES", [3], [["a"], "bc"])), None, r"different lengths below \[2\]"),
        (body(tensor("X", "FP32", [3], [[1, 2], [3]])), None, r"different lengths below \[2\]"),
        (body(tensor("X", "FP32", [2, 2], [1, 2, 3])), None, r"\[2, 2\] needs 4 elements, there are 3"),
        (body(tensor("X", "FP32", [0, 2], [])), None, "hold 0 events"),
        (body(tensor("X", "FP32", [1, 2, 0], [])), None, "no elements behind an axis"),
        (body(tensor("X", "FP32", [1, 10**12, 0], [])), None, "no elements behind an axis"),
        (body(tensor("X", "FP32", [1, 2, *[1] * 300], [1, 2])), None, "302 axes; 64 are the most"),
        (body(tensor("X", "INT8", [2000], [1] * 2000)), None, "1 to 1024"),
        (body(tensor("X", "FP32", [1], ["a"])), None, "takes numbers"),
        (body(tensor("X", "INT8", [1], [128])), None, "out of the range of INT8"),
        (body(tensor("X", "UINT8", [1], [-1])), None, "out of the range of UINT8"),
        (body(tensor("X", "INT32", [1], [True])), None, "takes whole numbers"),
        (body(tensor("X", "BOOL", [1], [1])), None, "takes truth values"),
        (body(tensor("X", "FP32", [1])), None, "has no data"),
        (b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1],"data":[1e999]}]}', None, "out of range"),
        (body(RAW), b"\0\0\0", "the body ends before"),
        (body(RAW), b"\0\0\0\0\0", "1 raw bytes belong to no input"),
        (body(RAW), struct.pack("<f", float("nan")), "no NaN"),
        (body(tensor("X", "FP32", [1], binary_data_size=3)), b"\0\0\0", "no elements of FP32"),
        (body(tensor("X", "BYTES", [1], binary_data_size=6)), b"\x09\0\0\0ab", "no elements of BYTES"),
        (body(tensor("X", "BYTES", [1], binary_data_size=5)), b"\x01\0\0\0\xff", "no elements of BYTES"),
        (body(tensor("X", "BYTES", [1], binary_data_size=-1)), b"", "a whole number"),
        (body(tensor("X", "FP32", [1], [1]), outputs=[{"name": "a", "parameters": {"classification": 3}}]), None,
         "classification"),
    ],
)  # fmt: skip
def test_what_is_refused(text: bytes, raw: bytes | None, told: str) -> None:
    with pytest.raises(V2Error, match=told):
        v2.read(text + (raw or b""), None if raw is None else str(len(text)), UNKNOWN)


def test_paths_that_exclude_each_other() -> None:
    model = Model("m", settings={"X": InputSetting(at="order"), "n": InputSetting(at="order.n")})
    with pytest.raises(V2Error, match=r"order\.n"):
        v2.read(body(tensor("X", "FP32", [1], [1]), tensor("n", "FP32", [1], [1])), None, model)


@pytest.mark.parametrize("size", ["-1", "x", "", "9" * 5000, "100"])
def test_a_size_of_json_that_is_none(size: str) -> None:
    with pytest.raises(V2Error, match="not the size"):
        v2.read(b"{}", size, UNKNOWN)


@pytest.mark.parametrize("count", [1, 3])
def test_what_our_own_model_client_sends_comes_back_as_its_events(count: int) -> None:
    """An event goes to a payload and back without a change, and so does its result."""
    inputs = {
        "X": {"from": "order.features", "datatype": "FP32", "shape": [2]},
        "s": {"datatype": "BYTES", "shape": []},
    }
    settings = ModelSettings(spec="http://127.0.0.1:1/v2/models/m/infer", inputs=inputs)
    model = Model("m", settings={"X": InputSetting(at="order.features")})
    seen: list[dict[str, Any]] = []

    class Peer:
        def check(self, _endpoint: object) -> None: ...

        def get(self, _endpoint: object) -> Any:
            return {"versions": ["1"]}

        def post(self, _endpoint: object, sent: bytes) -> Any:
            request = v2.read(sent, None, model)
            seen.extend(request.payloads)
            results = [{"class": each["s"], "confidence": sum(each["order"]["features"])} for each in request.payloads]
            return json.loads(v2.response(request, results, model))

    breaker = Breaker("m", failures=5, wait_s=1, on_circuit=lambda *_: None)
    client = V2Model(Peer(), breaker, endpoint(settings), settings)  # type: ignore[arg-type]
    client.warm_up()
    events: list[dict[str, Any]] = [
        {"order": {"features": [number, 0.5]}, "s": "ab"[number % 2]} for number in range(count)
    ]
    results = client.predict_batch(events)
    assert seen == events
    assert results == [{"class": each["s"], "confidence": each["order"]["features"][0] + 0.5} for each in events]


def test_outputs_and_versions_are_those_that_results_have_shown() -> None:
    model = Model("m")

    def answered(results: list[Any], version: str = "", *outputs: str) -> list[dict[str, Any]]:
        chosen = [{"name": name} for name in outputs]
        asked = v2.read(body(tensor("X", "FP32", [len(results)], [0] * len(results)), outputs=chosen), None, model)
        told = json.loads(v2.response(asked, results, model, version))
        assert told["model_version"] == (version or "1")
        found: list[dict[str, Any]] = model.metadata()["outputs"]
        return found

    assert model.metadata()["outputs"] == []
    vectors = [{"name": "v", "datatype": "INT64", "shape": [-1, 2]}, {"name": "s", "datatype": "BYTES", "shape": [-1]}]
    assert answered([{"v": [1, 2], "s": "a"}] * 3, "a") == vectors
    # A choice among them hides none; a size that varies is -1; other outputs take their place.
    assert answered([{"v": [1, 2], "s": "a"}], "b", "s") == vectors
    assert answered([{"v": [1, 2, 3], "s": "a"}], "a")[0]["shape"] == [-1, -1]
    assert answered([{"v": [0.5], "s": "a"}])[0] == {"name": "v", "datatype": "FP64", "shape": [-1, 1]}
    assert answered([1]) == [{"name": "output", "datatype": "INT64", "shape": [-1]}]
    assert model.metadata()["versions"] == ["b", "a", "1"]
    for number in range(20):
        answered([1], f"v{number}")
    assert model.versions == [*(f"v{number}" for number in range(12, 20)), "1"]
