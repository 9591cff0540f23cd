"""The synchronous forms through a real gateway and broker, to a consumer of an ONNX file: Triton's client, and ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infertool.models.loader import open_model, warm_up
from infertool.settings import ModelSettings
from tests.support.embedded import EmbeddedBroker
from tests.support.running import LONG, PATIENT_GATEWAY, Running

ONNX = Path(__file__).parents[2] / "fixtures" / "models" / "reference.onnx"
FEATURES = [float(number) for number in range(8)]
TRITON = """
import sys, json
import numpy as np
import tritonclient.http as triton
client = triton.InferenceServerClient(sys.argv[1])
assert client.is_server_ready() and client.is_model_ready("default")
x = triton.InferInput("features", [2, 8], "FP32")
x.set_data_from_numpy(np.array([range(8), range(8)], np.float32))
answer = client.infer("default", [x])
print(json.dumps([[str(each) for each in answer.as_numpy("class")], answer.as_numpy("confidence").tolist()]))
"""


@pytest.fixture(scope="module")
def url(embedded_broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("v2")
    queue = ("--broker", embedded_broker.url, "--queue", "v2.requests")
    options = ("--listen", "0", *queue, "--state-dir", str(folder / "s"), "-o", "json")
    gateway = Running(folder / "g", "gateway", *options, **PATIENT_GATEWAY)
    consumer = Running(
        folder / "c", "consume", *queue, "--dlq", "v2.dead", "--model", f"onnx:{ONNX}", "--batch-size", "8", "--reply",
        INFERTOOL_CONSUME__STATE_DIR=str(folder / "state"),
    )  # fmt: skip
    try:
        assert gateway.process.stdout
        yield str(json.loads(gateway.process.stdout.readline())["url"])
    finally:
        gateway.kill()
        consumer.kill()


@pytest.mark.long
def test_three_clients_get_the_same_results(url: str) -> None:
    answer = httpx.post(f"{url}/predict", json={"features": FEATURES}, timeout=LONG, headers={"request-timeout": "100"})
    assert (answer.status_code, answer.headers["infertool-status"]) == (200, "succeeded"), answer.text
    assert float(answer.headers["infertool-processing-ms"]) > 0
    result = answer.json()

    address = url.removeprefix("http://")
    ran = subprocess.run([sys.executable, "-c", TRITON, address], capture_output=True, text=True, timeout=LONG)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [[result["class"]] * 2, [result["confidence"]] * 2]

    inputs = {"features": {"from": "a.b", "datatype": "FP32", "shape": [8]}}
    model = open_model(ModelSettings(spec=f"{url}/v2/models/default/infer", inputs=inputs))
    warm_up(model)
    assert model.predict_batch is not None
    assert model.predict_batch([{"a": {"b": FEATURES}}] * 3) == [result] * 3
    model.close()


@pytest.mark.long
@pytest.mark.parametrize("path", ["/predict", "/v2/models/default/infer"])
def test_what_the_model_refuses_is_the_callers_fault_and_can_be_replayed(url: str, path: str) -> None:
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    body = {"features": [1, 2]} if path == "/predict" else {"inputs": [tensor]}
    answer = httpx.post(f"{url}{path}", json=body, timeout=LONG, headers={"request-timeout": "100"})
    problem = answer.json()
    assert (answer.status_code, problem["reason"], problem["stage"]) == (422, "input_refused", "infer")
    assert problem["error"] == "input 'features': takes shape [8], the event has [2]"
    assert problem["replay"] == f"infertool replay-dlq --id {problem['event_id']}"
