"""The v2 protocol of KServe and Triton, against a server that speaks it correctly or wrongly."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pytest

from infertool.errors import InferenceError, InfertoolError, ModelUnavailableError
from infertool.models.batch_results import WrongResultsError
from infertool.models.loader import open_model, warm_up
from infertool.models.port import LoadedModel
from infertool.secret import Secret
from infertool.settings import ModelSettings
from tests.support.modelserver import ModelServer, Reply, Request, answer, reply
from tests.support.present import present

FEATURES = [0.5, 1, -2.5]
METADATA = {
    "name": "iris",
    "versions": ["1"],
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}],
}


class V2Server(ModelServer):
    """Ready, with metadata; answers each event with the sum of its numbers, as a tensor [n, 1]."""

    metadata: Any = METADATA
    outputs: Any = None

    def respond(self, request: Request) -> Reply:
        if request.path.endswith("/ready"):
            return reply(b"ok")
        if request.method == "GET":
            return self.metadata if isinstance(self.metadata, Reply) else answer(self.metadata)
        (tensor, *_) = request.json["inputs"]
        rows, columns = tensor["shape"]
        sums = [sum(tensor["data"][row * columns : (row + 1) * columns]) for row in range(rows)]
        sums_of_rows = [{"name": "sum", "datatype": "FP32", "shape": [rows, 1], "data": sums}]
        outputs = sums_of_rows if self.outputs is None else self.outputs
        return answer({"model_name": "iris", "model_version": "1", "outputs": outputs})


@pytest.fixture
def server() -> Iterator[V2Server]:
    running = V2Server()
    running.handler = running.respond
    running.start()
    yield running
    running.stop()


def opened(server: ModelServer, path: str = "/v2/models/iris/infer", **settings: Any) -> LoadedModel:
    model = open_model(ModelSettings(spec=server.url.replace("/predict", path), **settings))
    warm_up(model)
    return model


def refusal(server: ModelServer, **settings: Any) -> str:
    with pytest.raises(InfertoolError) as caught:
        opened(server, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_conversation(server: V2Server) -> None:
    model = opened(server, inputs={"X": "features"}, token=Secret("t"))
    assert model.predict({"features": FEATURES}) == {"sum": -1.0}
    assert [(r.method, r.path, r.headers["authorization"]) for r in server.requests] == [
        ("GET", "/v2/health/ready", "Bearer t"),
        ("GET", "/v2/models/iris/ready", "Bearer t"),
        ("GET", "/v2/models/iris", "Bearer t"),
        ("POST", "/v2/models/iris/infer", "Bearer t"),
    ]
    assert server.requests[-1].json == {
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": FEATURES}]
    }
    assert server.connections == 1


def test_a_prefix_and_a_version_belong_to_the_path(server: V2Server) -> None:
    opened(server, "/serving/v2/models/iris/versions/2/infer?key=k").predict({"X": FEATURES})
    assert [r.path for r in server.requests] == [
        "/serving/v2/health/ready?key=k",
        "/serving/v2/models/iris/versions/2/ready?key=k",
        "/serving/v2/models/iris/versions/2?key=k",
        "/serving/v2/models/iris/versions/2/infer?key=k",
    ]


@pytest.mark.parametrize(
    ("metadata", "path", "version"),
    [
        (METADATA, "", "1"),
        ({**METADATA, "versions": ["9", "10", "2"]}, "", "10"),
        ({**METADATA, "versions": ["stable", "canary"]}, "", ""),
        ({**METADATA, "versions": []}, "", ""),
        ({**METADATA, "versions": "odd"}, "", ""),
        ({key: value for key, value in METADATA.items() if key != "versions"}, "", ""),
        (METADATA, "/versions/7%20b", "7 b"),
    ],
)
def test_the_version_is_that_of_the_url_or_of_the_server(
    server: V2Server, metadata: Any, path: str, version: str
) -> None:
    server.metadata = metadata
    assert opened(server, f"/v2/models/iris{path}/infer").version() == version


@pytest.mark.parametrize(("metadata", "version"), [(METADATA, "1"), (reply(b"", "404 Not Found"), "")])
def test_a_version_needs_no_metadata(server: V2Server, metadata: Any, version: str) -> None:
    server.metadata = metadata
    model = opened(server, inputs={"X": {"datatype": "FP32", "shape": [3]}})
    assert (model.predict({"X": FEATURES}), model.version()) == ({"sum": -1.0}, version)


def test_a_batch_is_one_request_and_unfit_events_fail_alone(server: V2Server) -> None:
    model = opened(server)
    first, unfit, last = present(model.predict_batch)([{"X": [1, 2, 3]}, {"X": [1]}, {"X": [4, 5, 6]}])
    assert (first, last) == ({"sum": 6}, {"sum": 15})
    assert isinstance(unfit, InferenceError)
    assert str(unfit) == "input 'X': takes shape [3], the event has [1]"
    assert server.requests[-1].json["inputs"][0] == {
        "name": "X", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6],
    }  # fmt: skip


def test_a_model_that_takes_fewer_events_gets_parts(server: V2Server) -> None:
    respond = server.handler

    def of_triton(request: Request) -> Reply:
        if request.method == "POST" and request.json["inputs"][0]["shape"][0] > 2:
            told = b'{"error":"[request id: <id_unknown>] inference request batch-size must be <= 2 for \'iris\'"}'
            return reply(told, "400 Bad Request")
        return respond(request)

    server.handler = of_triton
    model = opened(server)
    batch = [{"X": [n, 0, 0]} for n in range(5)]
    assert model.predict_batch
    assert model.predict_batch(batch) == [{"sum": n} for n in range(5)]
    shapes = [each.json["inputs"][0]["shape"] for each in server.requests if each.method == "POST"]
    assert shapes == [[5, 3], [2, 3], [2, 3], [1, 3]]


def test_events_of_the_same_shape_share_a_request(server: V2Server) -> None:
    server.metadata = {**METADATA, "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, -1]}]}
    model = opened(server)
    assert model.predict_batch
    batch = [{"X": [1]}, {"X": [1, 2]}, {"X": [3]}, {"X": "unfit"}, {"X": [3, 4]}, {"X": [1, 2, 3]}]
    first, second, third, unfit, *others = model.predict_batch(batch)
    assert [first, second, third, *others] == [{"sum": n} for n in (1, 3, 3, 7, 6)]
    assert isinstance(unfit, InferenceError)
    shapes = [each.json["inputs"][0]["shape"] for each in server.requests if each.method == "POST"]
    assert shapes == [[2, 1], [2, 2], [1, 3]]


def test_a_group_that_fails_is_asked_one_by_one(server: V2Server) -> None:
    server.metadata = {**METADATA, "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, -1]}]}
    respond = server.handler
    server.handler = lambda r: reply(b"odd", "422 Refused") if r.method == "POST" and b"13" in r.body else respond(r)
    model = opened(server)
    assert model.predict_batch
    batch = [{"X": [1]}, {"X": [13]}, {"X": [1, 2]}, {"X": [4]}]
    first, refused, second, third = model.predict_batch(batch)
    assert [first, second, third] == [{"sum": n} for n in (1, 3, 4)]
    assert isinstance(refused, InferenceError)
    asked = len(server.requests)
    server.handler = lambda _request: reply(b"", "503 Away")
    held = model.predict_batch([*batch[:2], {"X": [1, 2]}])
    assert all(isinstance(each, ModelUnavailableError) for each in held)
    assert len(server.requests) == asked + 2
    server.handler = lambda _request: reply(b"odd", "422 Refused")
    with pytest.raises(InferenceError, match="odd"):  # all together: the caller halves it
        model.predict_batch(batch[:2])


def test_a_model_without_a_batch_axis_is_asked_one_by_one(server: V2Server) -> None:
    server.metadata = {"inputs": [{"name": "X", "datatype": "INT32", "shape": [2, 3]}]}
    model = opened(server)
    assert present(model.predict_batch)([{"X": [[1, 2, 3], [4, 5, 6]]}, {"X": [1, 2, 3]}])[0] == {"sum": [[6], [15]]}
    assert server.requests[-1].json["inputs"][0] == {
        "name": "X", "datatype": "INT32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6],
    }  # fmt: skip


def test_an_output_whose_size_the_server_fixes_is_not_cut(server: V2Server) -> None:
    weights = {"name": "weights", "datatype": "FP32", "shape": [3]}
    server.metadata = {**METADATA, "outputs": [weights]}
    server.outputs = [{**weights, "data": [10, 20, 30]}]
    model = opened(server)
    assert model.predict({"X": [1, 2, 3]}) == {"weights": [10, 20, 30]}
    with pytest.raises(WrongResultsError, match="shape \\[3\\] for 3 events"):
        present(model.predict_batch)([{"X": [1, 2, 3]}] * 3)


def test_settings_that_describe_the_inputs_need_no_metadata(server: V2Server) -> None:
    server.metadata = reply(b"", "404 Not Found")
    inputs = {"X": {"from": "a.b", "datatype": "FP64", "shape": [-1]}, "unit": {"datatype": "BYTES", "shape": []}}
    opened(server, inputs=inputs).predict({"a": {"b": [1, 2]}, "unit": "kg"})
    assert server.requests[-1].json["inputs"] == [
        {"name": "X", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]},
        {"name": "unit", "datatype": "BYTES", "shape": [1], "data": ["kg"]},
    ]


@pytest.mark.parametrize(
    ("outputs", "results"),
    [
        (
            [
                {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["A", "B"]},
                {"name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": [0.9, 0.1, 0.25, 0.75]},
            ],
            [{"class": "A", "confidence": 0.9}, {"class": "B", "confidence": 0.75}],
        ),
        (
            [{"name": "boxes", "datatype": "FP32", "shape": [2, 2, 2], "data": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}],
            [{"boxes": [[1, 2], [3, 4]]}, {"boxes": [[5, 6], [7, 8]]}],
        ),
        (
            [{"name": "boxes", "datatype": "FP32", "shape": [2, 2, 2], "data": [1, 2, 3, 4, 5, 6, 7, 8]}],
            [{"boxes": [[1, 2], [3, 4]]}, {"boxes": [[5, 6], [7, 8]]}],
        ),
    ],
)
def test_outputs_come_back_by_name(
    server: V2Server, outputs: list[dict[str, Sequence[object]]], results: list[Any]
) -> None:
    server.outputs = outputs
    assert present(opened(server).predict_batch)([{"X": FEATURES}, {"X": FEATURES}]) == results


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ("x", "not as the v2 protocol says"),
        ([], "without outputs"),
        ([{"name": "sum"}], "not as the v2 protocol says"),
        ([{"name": "sum", "shape": [1, 2], "data": [1]}], "output 'sum' with 1 elements in shape [1, 2]"),
        (
            [{"name": "sum", "shape": [2], "data": [[1], None]}],
            "lists of different lengths below [2]",
        ),
        ([{"name": "sum", "shape": [3], "data": [["a"], "bc"]}], "output 'sum' with lists of different lengths"),
        ([{"name": "sum", "shape": [0], "data": []}], "output 'sum' with 0 elements"),
        ([{"name": "sum", "shape": [2], "data": [1, 2], "parameters": {"binary_data_size": 8}}], "in shape [2]"),
    ],
)
def test_a_wrong_answer_is_a_failed_try(
    server: V2Server,
    outputs: str | list[dict[str, str]] | list[dict[str, Sequence[object]]] | list[dict[str, Collection[object]]],
    words: str,
) -> None:
    server.outputs = outputs
    model = opened(server)
    with pytest.raises(InferenceError) as caught:
        present(model.predict_batch)([{"X": FEATURES}] * (2 if "[2]" not in words else 3))
    assert words in str(caught.value)
    assert caught.value.retryable
    assert not isinstance(caught.value, ModelUnavailableError)


def test_the_servers_own_words_about_a_bad_request(server: V2Server) -> None:
    model = opened(server)
    server.handler = lambda _request: reply(b'{"error":"unexpected shape for input \'X\'"}', "400 Bad Request")
    with pytest.raises(InferenceError, match="unexpected shape for input 'X'") as caught:
        model.predict({"X": FEATURES})
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("path", "given", "words"),
    [
        ("/v2/health/ready", reply(b"", "503 Service Unavailable"), "is not ready: "),
        ("/v2/models/iris/ready", reply(b'{"error":"unknown model iris"}', "404 Not Found"), "unknown model iris"),
        ("/v2/models/iris", reply(b"<html>"), "no JSON: <html>"),
        ("/v2/models/iris", answer({"inputs": [{"name": "X"}]}), "metadata is not that of the v2 protocol"),
        ("/v2/models/iris", answer({"inputs": []}), "does not describe its inputs; describe them"),
        (
            "/v2/models/iris",
            answer({"inputs": [{"name": "X", "datatype": "COMPLEX", "shape": [1]}]}),
            "input 'X' has the datatype 'COMPLEX'; one of FP16",
        ),
    ],
)
def test_a_server_that_is_not_ready_ends_the_start(server: V2Server, path: str, given: Reply, words: str) -> None:
    server.handler = lambda request: given if request.path == path else server.respond(request)
    assert words in refusal(server)


def test_a_server_that_is_down_ends_the_start(server: V2Server) -> None:
    server.stop()
    text = refusal(server)
    assert "Connection refused" in text
    assert "is the server up" in text
    server.start()


def test_inputs_that_the_model_does_not_have(server: V2Server) -> None:
    assert "model.inputs.Y: the model has no such input; it has: X" in refusal(server, inputs={"Y": "x"})
    half = {"X": {"datatype": "FP32", "shape": [3]}, "Z": "z"}
    assert "input 'Z' has the datatype ''" in refusal(server, inputs=half)


def test_a_path_that_only_looks_like_it_is_plain(server: V2Server) -> None:
    server.handler = lambda request: answer({"got": request.json})
    for path in ("/v2/models/iris", "/v2/models/iris/generate", "/v1/models/iris:predict"):
        assert opened(server, path).predict({"a": 1}) == {"got": {"a": 1}}
