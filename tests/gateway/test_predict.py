"""The synchronous routes over a fake engine: `/predict` and the v2 protocol; real clients, over a real socket."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from infertool.gateway import v2
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import State
from infertool.models.loader import open_model, warm_up
from infertool.settings import ModelSettings
from infertool.text import json_text
from tests.gateway.front_server import LONG, FrontServer

JSON = {"content-type": "application/json"}
TENSOR = {"name": "X", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}


@pytest.fixture
def server() -> Iterator[FrontServer]:
    with FrontServer() as running:
        yield running


@pytest.fixture
def client(server: FrontServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=LONG, headers={"infertool-model": "default"}) as made:
        yield made


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LONG
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_the_body_is_the_result_itself_and_the_headers_are_the_rest(client: httpx.Client, server: FrontServer) -> None:
    answer = client.post("/predict", content=b'{ "x":1.10}', headers=JSON | {"infertool-class": "batch"})
    assert (answer.status_code, answer.content) == (200, b'{ "x":1.10}')
    told = {name: answer.headers[f"infertool-{name}"] for name in ("status", "class", "processing-ms", "event-id")}
    (known,) = server.engine.known
    assert told == {"status": "succeeded", "class": "batch", "processing-ms": "1.500", "event-id": known}
    packed = client.post("/predict", content=b"\x81\xa1x\x01", headers={"content-type": "application/msgpack"})
    assert (packed.content, packed.headers["content-type"]) == (b"\x81\xa1x\x01", "application/msgpack")


def test_an_array_is_one_event_for_the_gateway_and_a_batch_for_a_model_server(
    client: httpx.Client, server: FrontServer
) -> None:
    answer = client.post("/predict", content=b"[1,2]", headers=JSON)
    assert (answer.content, [answer.headers["infertool-event-id"]]) == (b"[1,2]", list(server.engine.known))
    with FrontServer(batches=True) as batches, httpx.Client(base_url=batches.url, timeout=LONG) as other:
        named = JSON | {"infertool-model": "default"}
        answer = other.post("/predict", content=b' [{"n": 1},[2]]', headers=named)
        assert (answer.json(), answer.headers["infertool-event-id"]) == (
            [{"n": 1}, [2]],
            ",".join(batches.engine.known),
        )
        assert other.post("/predict", content=b"[]", headers=named).json() == []
        assert other.post("/predict", json=[0] * 1025, headers=named).json()["reason"] == "invalid_body"
        # The limits of a client count each event, and none of them stays counted.
        greedy = named | {"x-api-key": "greedy"}
        assert other.post("/predict", json=[1, 2, 3, 4], headers=greedy).status_code == 429
        assert other.post("/predict", json=[1, 2, 3], headers=greedy).status_code == 200
        assert batches.limits.held["greedy"] == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [("/predict", {"fail": 1}), ("/v2/models/default/infer", {"inputs": [TENSOR | {"name": "fail"}]})],
)
def test_what_another_try_would_not_change_is_the_callers(
    client: httpx.Client, server: FrontServer, path: str, body: object
) -> None:
    answer = client.post(path, json=body)
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["reason"]) == (422, 422, "input_refused")
    assert (problem["error"], problem["error_type"], problem["retryable"]) == ("no", "InferenceError", False)
    assert problem["event_id"] == next(iter(server.engine.known))


@pytest.mark.parametrize("retryable", [b"true", b"null"])
def test_other_failures_are_the_servers(client: httpx.Client, server: FrontServer, retryable: bytes) -> None:
    body = b'{"error":"no","error_type":"E","stage":"infer","retryable":%b}' % retryable
    with httpx.Client(base_url=server.url, timeout=LONG) as other:
        answers: list[httpx.Response] = []
        asking = threading.Thread(
            target=lambda: answers.append(other.post("/predict", json="hold", headers={"infertool-model": "default"}))
        )
        asking.start()
        (asked,) = until(lambda: list(server.engine.known))
        server.run(server.engine.finish(asked, State.FAILED, body))
        asking.join(LONG)
    assert (answers[0].status_code, answers[0].json()["reason"]) == (500, "inference_failed")


def test_a_caller_waits_for_its_deadline_which_is_that_of_its_request(
    client: httpx.Client, server: FrontServer
) -> None:
    before_ms = time.time() * 1000
    answer = client.post("/predict", json="hold", headers={"request-timeout": "0.2"})
    ((asked, progress),) = server.engine.known.items()
    assert (answer.status_code, answer.json()["reason"], answer.json()["event_id"]) == (504, "expired", asked)
    assert progress.request.deadline_ms - before_ms < 60_000
    assert server.engine.left == [asked]


@pytest.mark.parametrize("headers", [{"prefer": "wait=0.0000001"}, {"request-timeout": "999999999.99999999"}])
def test_a_wait_that_is_no_deadline_is_the_nearest_one(client: httpx.Client, headers: dict[str, str]) -> None:
    assert client.post("/predict", json=1, headers=headers).json() == 1


def test_a_caller_who_hangs_up_gives_all_its_events_up(server: FrontServer) -> None:
    inputs = [{"name": "hold", "datatype": "INT8", "shape": [3], "data": [1, 2, 3]}]
    body = json.dumps({"inputs": inputs}).encode()
    head = b"POST /v2/models/default/infer HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    line = server.raw(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    until(lambda: len(server.engine.known) == 3 and server.front.chain.waits)
    line.close()
    until(lambda: len(server.engine.left) >= 3)
    assert set(server.engine.left) == set(server.engine.known)


def test_what_the_engine_refuses_does_not_stay_counted(client: httpx.Client, server: FrontServer) -> None:
    server.engine.refusal = Problem(Reason.FULL, retry_after_s=7)
    answer = client.post("/v2/models/default/infer", json={"inputs": [TENSOR]})
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["reason"]) == (429, "7", "full")
    assert server.limits.held == {"anonymous": 0}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/infer", {"accept": "text/html"}, 406),
        ("/predict", {"request-timeout": "soon"}, 400),
        ("/v2/models/default/infer", {"request-timeout": "soon"}, 400),
        ("/v2/models/default/infer", {"content-type": "text/csv"}, 415),
        ("/v2/models/default/infer", {"idempotency-key": "k" * 256}, 400),
        ("/predict", {"x-request-id": "r" * 256}, 400),
        ("/v1/infer", {"infertool-webhook": "http://a"}, 400),
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_what_is_refused_behind_the_limits_does_not_stay_counted(
    client: httpx.Client, server: FrontServer, path: str, headers: dict[str, str], status: int, *, is_chunked: bool
) -> None:
    body = json.dumps({"inputs": [TENSOR]}).encode()
    content: Any = iter([body]) if is_chunked else body
    answer = client.post(path, content=content, headers={"content-type": "application/json", **headers})
    assert answer.status_code == status
    assert server.limits.held.get("anonymous", 0) == 0


@pytest.mark.parametrize(
    ("prefer", "timeout", "applied"),
    [
        ("wait=7", None, "wait=7"),
        ("respond-async", None, None),
        ("respond-async, wait=7", None, "wait=7"),
        ("wait=7", "9", None),
    ],
)
def test_only_a_preference_that_is_honoured_is_told(
    client: httpx.Client, prefer: str, timeout: str | None, applied: str | None
) -> None:
    headers = {"prefer": prefer} | ({"request-timeout": timeout} if timeout else {})
    for path, asked in (("/predict", 1), ("/v2/models/default/infer", {"inputs": [TENSOR]})):
        answer = client.post(path, json=asked, headers={**headers, "infertool-model": "default"})
        assert (answer.status_code, answer.headers.get("preference-applied")) == (200, applied)
    stream = {**headers, "accept": "text/event-stream"}
    answer = client.post("/v1/models/default/infer", json=1, headers=stream)
    assert (answer.status_code, answer.headers.get("preference-applied")) == (200, None)


def test_a_batch_that_fails_names_its_events(client: httpx.Client, server: FrontServer) -> None:
    tensor = {"name": "x", "datatype": "BYTES", "shape": [2], "data": ["ok", "fail"]}
    answer = client.post("/v2/models/default/infer", json={"inputs": [tensor]})
    assert (answer.status_code, answer.json()["event_id"]) == (422, [*server.engine.known][1])
    assert answer.headers["infertool-event-id"] == ",".join(server.engine.known)


def test_v2_answers_outputs_by_name(client: httpx.Client, server: FrontServer) -> None:
    body = {"id": "r", "inputs": [TENSOR, {"name": "s", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}]}
    answer = client.post("/v2/models/default/versions/1/infer", json=body)
    told = answer.json()
    assert (told["model_name"], told["model_version"], told["id"]) == ("default", "1", "r")
    assert told["outputs"][1] == {"name": "s", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}
    assert (told["outputs"][0]["name"], told["outputs"][0]["shape"]) == ("X", [2, 2])
    assert told["outputs"][0]["data"] == [1, 2, 3, 4]
    assert answer.headers["infertool-event-id"] == ",".join(server.engine.known)


def test_the_headers_of_a_large_batch_pass_through_proxies(client: httpx.Client, server: FrontServer) -> None:
    tensor = {"name": "x", "datatype": "INT64", "shape": [1000], "data": list(range(1000))}
    answer = client.post("/v2/models/default/infer", json={"inputs": [tensor]})
    assert len(answer.json()["outputs"][0]["data"]) == 1000
    assert answer.headers["infertool-event-id"].split(",") == list(server.engine.known)[:50]
    assert sum(len(name) + len(value) + 4 for name, value in answer.headers.items()) < 4000


def test_a_batch_that_is_refused_tells_its_limits_once(client: httpx.Client, server: FrontServer) -> None:
    tensor = {"name": "x", "datatype": "INT64", "shape": [4], "data": [1, 2, 3, 4]}
    answer = client.post("/v2/models/default/infer", json={"inputs": [tensor]}, headers={"x-api-key": "greedy"})
    assert (answer.status_code, answer.json()["reason"]) == (429, "too_many_in_flight")
    assert answer.headers.get_list("ratelimit") == ['"default";r=0;t=1']
    assert server.limits.held == {"greedy": 0}


def test_an_idempotency_key_covers_each_event_of_a_request(client: httpx.Client, server: FrontServer) -> None:
    key = {"idempotency-key": '"k"'}
    first = client.post("/v2/models/default/infer", json={"inputs": [TENSOR]}, headers=key)
    again = client.post("/v2/models/default/infer", json={"inputs": [TENSOR]}, headers=key)
    other = client.post("/v2/models/default/infer", json={"inputs": [TENSOR | {"data": [0, 0, 0, 0]}]}, headers=key)
    assert (first.json(), len(server.engine.known)) == (again.json(), 2)
    assert (again.headers["idempotency-replayed"], other.status_code) == ("true", 422)


def test_the_longest_idempotency_key_covers_a_batch(client: httpx.Client, server: FrontServer) -> None:
    answers = [
        client.post("/v2/models/default/infer", json={"inputs": [TENSOR]}, headers={"idempotency-key": key})
        for key in ("k" * 255, "k" * 255, "k" * 254 + "l")
    ]
    assert [each.status_code for each in answers] == [200, 200, 200]
    assert len(server.engine.known) == 4


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "reason"),
    [
        ("GET", "/v2/models/none", {}, 404, "unknown_model"),
        ("GET", "/v2/models/default/versions/2", {}, 404, "unknown_model"),
        ("GET", "/v2/models/none/ready", {}, 404, "unknown_model"),
        ("POST", "/v2/models/none/infer",
         {"json": {"inputs": [TENSOR]}, "headers": {"infertool-model": "none"}}, 404, "unknown_model"),
        ("POST", "/v2/models/default/versions/2/infer", {"json": {"inputs": [TENSOR]}}, 404, "unknown_model"),
        ("POST", "/v2/models/none/infer", {"json": {"inputs": [TENSOR]}, "headers": {"x-api-key": "wrong"}}, 401,
         "invalid_credentials"),
        ("POST", "/v2/models/default/infer", {"json": {"inputs": []}}, 400, "invalid_body"),
        ("POST", "/v2/models/default/infer", {"content": b""}, 400, "invalid_body"),
        ("POST", "/v2/models/default/infer", {"content": b"x=1", "headers": {"content-type": "text/csv"}}, 415,
         "content_type"),
        ("POST", "/v2/models/default/infer", {"json": {"inputs": [TENSOR], "outputs": [{"name": "no"}]}}, 400,
         "invalid_body"),
        ("POST", "/v2/models/default/infer",
         {"json": {"inputs": [TENSOR]}, "headers": {"x-api-key": "no-default"}}, 403, "model_forbidden"),
        ("POST", "/v2/models/default/infer",
         {"content": b"{}", "headers": {"inference-header-content-length": "9"}}, 400, "invalid_body"),
    ],
)  # fmt: skip
def test_v2_refusals_are_problems_with_an_error(
    client: httpx.Client, server: FrontServer, method: str, path: str, options: dict[str, Any], status: int, reason: str
) -> None:
    answer = client.request(method, path, **options)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.json()["error"]
    assert all(held == 0 for held in server.limits.held.values())


@pytest.mark.parametrize(
    ("owner", "name", "path"),
    [
        (v2, "read", "/v2/models/default/infer"),
        (v2, "response", "/v2/models/default/infer"),
        (json_text, "raw_elements", "/predict"),
    ],
)
def test_work_on_large_requests_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, path: str
) -> None:
    """It waits here until another request has been answered."""
    begun, others_answered = threading.Event(), threading.Event()
    work = getattr(owner, name)

    def late(*arguments: Any) -> Any:
        begun.set()
        assert others_answered.wait(LONG)
        return work(*arguments)

    count = 80_000
    shape = {"name": "X", "datatype": "INT64", "shape": [2, count // 2], "parameters": {"binary_data_size": 8 * count}}
    head = json.dumps({"inputs": [shape]}).encode()
    raw = struct.pack(f"<{count}q", *range(count))
    sent = (
        {"content": head + raw, "headers": JSON | {"inference-header-content-length": str(len(head))}}
        if path != "/predict"
        else {"json": ["x" * 150_000] * 2, "headers": {"infertool-model": "default"}}
    )
    monkeypatch.setattr(owner, name, late)
    answers: list[httpx.Response] = []
    with FrontServer(batches=True) as server, httpx.Client(base_url=server.url, timeout=LONG) as client:
        asking = threading.Thread(target=lambda: answers.append(client.post(path, **sent)))
        asking.start()
        assert begun.wait(LONG)
        assert httpx.get(f"{server.url}/livez", timeout=LONG).status_code == 200
        others_answered.set()
        asking.join(LONG)
    [answer] = answers
    if path == "/predict":
        assert answer.json() == sent["json"]
    else:
        [output] = answer.json()["outputs"]
        assert (output["shape"], output["data"]) == ([2, count // 2], list(range(count)))


def test_health_and_metadata(client: httpx.Client, server: FrontServer) -> None:
    assert [client.get(f"/v2/health/{each}").status_code for each in ("live", "ready")] == [200, 200]
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/models/default").json() == {
        "name": "default", "versions": ["1"], "platform": "infertool", "inputs": [], "outputs": [],
    }  # fmt: skip
    assert client.get("/v2/models/default/versions/1/ready").status_code == 200
    server.ready = False
    assert client.get("/v2/health/ready").status_code == 503
    assert "broker: away" in client.get("/v2/models/default/ready").json()["error"]
    assert client.get("/v2/health/live").status_code == 200


TRITON = """
import sys, json
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException
client = triton.InferenceServerClient(sys.argv[1])
x = triton.InferInput("X", [2, 3], "FP32")
x.set_data_from_numpy(np.array([[1, 2, 3], [4, 5, 0.5]], np.float32), binary_data=sys.argv[2] == "binary")
s = triton.InferInput("s", [2], "BYTES")
s.set_data_from_numpy(np.array(["a", "\\u00fc"], object), binary_data=sys.argv[2] == "binary")
answer = client.infer("default", [x, s], request_id="r", outputs=[triton.InferRequestedOutput("X")])
whole = client.infer("default", [x, s])
try:
    client.infer("none", [x])
    refused = ""
except InferenceServerException as error:
    refused = error.message()
print(json.dumps({
    "health": [client.is_server_live(), client.is_server_ready(), client.is_model_ready("default", "1")],
    "name": client.get_model_metadata("default")["name"],
    "X": answer.as_numpy("X").tolist(), "s": [str(each) for each in whole.as_numpy("s")], "refused": refused,
}))
"""


@pytest.mark.parametrize("how", ["json", "binary"])
def test_tritons_own_client(server: FrontServer, how: str) -> None:
    """In a process of its own: it brings gevent."""
    address = f"127.0.0.1:{server.port}"
    ran = subprocess.run([sys.executable, "-c", TRITON, address, how], capture_output=True, text=True, timeout=LONG)
    assert json.loads(ran.stdout or "null") == {
        "health": [True, True, True], "name": "default", "X": [[1, 2, 3], [4, 5, 0.5]], "s": ["a", "ü"],
        "refused": "the models are default, other",
    }, ran.stderr  # fmt: skip


def test_our_own_models_with_an_address_of_v2(server: FrontServer) -> None:
    inputs = {"X": {"from": "a.b", "datatype": "FP32", "shape": [2]}}
    spec = f"{server.url}/v2/models/default/infer"
    model = open_model(ModelSettings(spec=spec, inputs=inputs))
    warm_up(model)
    assert model.predict_batch is not None
    assert model.predict_batch([{"a": {"b": [1, 2]}}, {"a": {"b": [3, 4]}}]) == [{"X": [1, 2]}, {"X": [3, 4]}]
    model.close()
