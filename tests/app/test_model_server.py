"""`infertool serve-model`, run as its users do: what it answers, and how it refuses, survives its model, and stops."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from infertool.errors import InferenceError
from infertool.models.loader import open_model
from infertool.settings import ModelSettings
from tests.bus.conftest import Bus
from tests.support.running import LONG, Running, infertool

FIXTURES = Path(__file__).parents[2] / "fixtures"
MODELS = FIXTURES / "models"
ONNX = f"onnx:{MODELS / 'reference.onnx'}"


@dataclass
class Serving:
    """A model server in a process."""

    running: Running
    url: str
    model: str
    client: httpx.Client

    def predict(self, payload: Any, **options: Any) -> httpx.Response:
        return self.client.post("/predict", json=payload, **options)

    def figure(self, name: str) -> float:
        """Return the value of a metric, 0 if it is not there yet."""
        lines = [line for line in self.client.get("/metrics").text.splitlines() if line.startswith(name)]
        return float(lines[0].rpartition(" ")[2]) if lines else 0.0


@contextmanager
def serving(folder: Path, spec: str, *options: str, **env: str) -> Iterator[Serving]:
    """Run a server until the block ends, and let it stop in order."""
    state = {"INFERTOOL_CONSUME__STATE_DIR": str(folder / "state"), **env}
    running = Running(folder / "server", "serve-model", spec, "--listen", "0", "-o", "json", *options, **state)
    assert running.process.stdout
    try:
        line = running.process.stdout.readline()
        assert line, running.log.read_text()[-3000:]
        ready = json.loads(line)
        limits = httpx.Limits(max_connections=None)
        with httpx.Client(base_url=ready["url"], timeout=LONG, limits=limits) as client:
            try:
                yield Serving(running, ready["url"], ready["model"], client)
            except httpx.TransportError as fault:
                raise AssertionError(running.log.read_text()[-3000:]) from fault
        running.terminate()
        running.finish()
    finally:
        if running.process.poll() is None:
            running.kill()


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LONG
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("path", ["/predict", "/v2/models/reference/infer"])
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_consumer_works_with_it_in_batches(embedded_bus: Bus, tmp_path: Path, path: str, executor: str) -> None:
    raw = embedded_bus.raw()
    events = [{"features": [number, *range(7)]} for number in range(20)]
    events[7] = {"features": [1]}
    raw.send(embedded_bus.queue, (({"event_id": f"e-{n}"}, json.dumps(e).encode()) for n, e in enumerate(events)))
    raw.close()
    with serving(tmp_path, ONNX, "--batch-size", "8", "--executor", executor) as server:
        ran = infertool(
            "consume", "--broker", embedded_bus.broker.url, "--queue", embedded_bus.queue, "--dlq", embedded_bus.dlq,
            "--model", server.url + path, "--batch-size", "8", "--batch-wait", "200ms", "--publish", "stdout",
            "--max-messages", "20", INFERTOOL_CONSUME__STATE_DIR=str(tmp_path / "consumer"),
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    documents = {each["event_id"]: each for each in map(json.loads, ran.stdout.splitlines())}
    assert len(documents) == 20
    failed = documents.pop("e-7")
    # Refused for good: no second try, and the circuit stays closed.
    assert (failed["status"], failed["attempts"]) == ("FAILED", 1)
    assert "takes shape [8]" in failed["error"]
    assert all(each["prediction"].keys() == {"class", "confidence"} for each in documents.values())
    assert embedded_bus.dead_ids() == ["e-7"]


def test_events_of_a_batch_fail_alone_for_a_caller_that_prefers_that(tmp_path: Path) -> None:
    with serving(tmp_path, f"{MODELS / 'batched.py'}:Batched", "--batch-size", "8") as server:
        batch = [{"request_id": f"r-{n}"} for n in (1, 3, 23, 4)]
        answer = server.predict(batch, headers={"prefer": "wait=60, multi-status"})
        assert answer.status_code == 207
        assert [each["status"] for each in answer.json()] == [200, 500, 422, 200]
        assert answer.json()[0]["body"] == {"class": "A", "number": 1}
        assert answer.json()[1]["body"]["error"] == "3 spoils the batch"
        assert answer.json()[2]["body"]["error"] == "23 alone fails"
        whole = server.predict(batch[:1], headers={"prefer": "multi-status"})
        assert (whole.status_code, whole.json()) == (200, [{"class": "A", "number": 1}])
        assert server.predict(batch).status_code in {500, 422}

        # As a consumer asks: one request, and an error in the place of each event that failed.
        model = open_model(ModelSettings(spec=f"{server.url}/predict"))
        assert model.predict_batch
        first, spoils, fails, last = model.predict_batch(batch)
        model.close()
        assert (first["number"], last["number"]) == (1, 4)
        assert isinstance(spoils, InferenceError)
        assert isinstance(fails, InferenceError)
        assert (spoils.retryable, fails.retryable) == (True, False)
        assert "answered 422: 23 alone fails" in str(fails)


def test_what_an_onnx_file_takes_is_in_the_metadata(tmp_path: Path) -> None:
    inputs = json.dumps({"features": "order.values"})
    with serving(tmp_path, ONNX, "--name", "fraud", INFERTOOL_MODEL__INPUTS=inputs) as server:
        metadata = server.client.get("/v2/models/fraud").json()
        assert (metadata["versions"], metadata["outputs"]) == (["1"], [])
        assert metadata["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 8]}]
        tensor = {"name": "features", "datatype": "FP32", "shape": [1, 8], "data": [1] * 8}
        answer = server.client.post("/v2/models/fraud/infer", json={"inputs": [tensor]}).json()
        result = server.predict({"order": {"values": [1] * 8}}).json()
        assert {each["name"]: each["data"][0] for each in answer["outputs"]} == result
        assert server.client.get("/v2/models/reference").status_code == 404
        # What results have shown.
        assert server.client.get("/v2/models/fraud").json()["outputs"] == [
            {"name": "class", "datatype": "BYTES", "shape": [-1]},
            {"name": "confidence", "datatype": "FP64", "shape": [-1]},
        ]


def test_the_version_of_a_model_is_told_and_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "versioned.py").write_text("__version__ = '2.1'\ndef predict(payload):\n    return payload\n")
    with serving(tmp_path, f"{tmp_path / 'versioned.py'}:predict") as server:
        asked = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [1]}]}
        path = "/v2/models/versioned"
        assert server.client.get(f"{path}/versions/2.1").status_code == 404
        assert server.client.post(f"{path}/infer", json=asked).json()["model_version"] == "2.1"
        assert server.client.get(path).json()["versions"] == ["2.1", "1"]
        for version in ("2.1", "1"):
            assert server.client.post(f"{path}/versions/{version}/infer", json=asked).json()["model_version"] == "2.1"
        assert server.client.get(f"{path}/versions/2.2").status_code == 404


def test_one_request_with_many_events_fills_batches(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    spec = f"{MODELS / 'holds.py'}:Holds"
    with serving(tmp_path, spec, "--batch-size", "8", "--batch-wait", "1s", HOLDS_LOG=str(log)) as server:
        assert server.predict([{"n": n} for n in range(24)]).json() == [{"n": n} for n in range(24)]
        sizes = [int(line.split()[1]) for line in log.read_text().splitlines()]
        assert sizes.count(8) >= 16


@pytest.mark.parametrize(
    ("spec", "payload", "status", "error_type"),
    [
        ("raises_inference_error.py:predict", {"retryable": False}, 422, "InferenceError"),
        ("raises_inference_error.py:predict", {}, 500, "InferenceError"),
        ("awaits.py:Does", {"do": "hangs"}, 500, "Timeout"),
        ("misbehaves.py:Misbehaves", {"do": "kill"}, 500, "WorkerDied"),
        ("misbehaves.py:Misbehaves", {"do": "exit"}, 500, "WorkerDied"),
        ("misbehaves.py:Misbehaves", {"do": "hang"}, 500, "Timeout"),
        ("misbehaves.py:Misbehaves", {"do": "hang-in-c"}, 500, "Timeout"),
    ],
)
def test_a_model_that_fails_hangs_or_dies_fails_its_own_request(
    tmp_path: Path, spec: str, payload: Any, status: int, error_type: str
) -> None:
    # An async model is called on threads: there its call is cancelled, a worker process is ended.
    executor = () if spec.startswith("awaits") else ("--executor", "processes", "--workers", "1")
    with serving(tmp_path, str(MODELS / spec), *executor, "--timeout", "1s") as server:
        answer = server.predict(payload)
        assert (answer.status_code, answer.json()["error_type"]) == (status, error_type)
        assert "replay" not in answer.json()
        if spec.startswith("misbehaves"):
            assert server.predict({}).json()["pid"]
        assert server.client.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize("spec", [f"{MODELS / 'warm_up_failure.py'}:Model", f"{MODELS / 'none.py'}:predict"])
def test_a_model_that_cannot_be_loaded_ends_it_before_it_listens(spec: str) -> None:
    ran = infertool("serve-model", spec, "--listen", "0", "-o", "json")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "Traceback" not in ran.stderr


def holding(folder: Path, **options: Any) -> tuple[str, dict[str, str]]:
    return f"{MODELS / 'holds.py'}:Holds", {"HOLDS_LOG": str(folder / "calls")}


# One event at a time, and one that waits behind it: in batches more of them are with the consumer.
SINGLY = ("--concurrency", "1", "--batch-size", "1")


def test_a_full_queue_refuses_at_once_and_says_when_there_is_room(tmp_path: Path) -> None:
    spec, env = holding(tmp_path)
    gate = tmp_path / "gate"
    with (
        serving(tmp_path, spec, *SINGLY, "--max-queue", "3", "--queue-timeout", "60s", **env) as server,
        ThreadPoolExecutor(8) as threads,
    ):
        # Work, so that a rate is known.
        until(lambda: server.predict({"n": 0}).is_success and server.figure("infertool_gateway_drain_rate") > 0)
        held = [threads.submit(server.predict, {"n": n, "holds": str(gate)}) for n in range(1, 6)]
        until(lambda: server.figure("infertool_gateway_waiting") == 3)
        refused = server.predict({"n": 9})
        assert (refused.status_code, refused.json()["reason"]) == (429, "full")
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        gate.touch()
        assert {each.result(LONG).status_code for each in held} == {200}
        assert server.predict({"n": 10}).status_code == 200


def test_who_waits_too_long_or_hangs_up_costs_the_model_nothing(tmp_path: Path) -> None:
    spec, env = holding(tmp_path)
    gate = tmp_path / "gate"
    with (
        serving(tmp_path, spec, *SINGLY, "--queue-timeout", "60s", **env) as server,
        ThreadPoolExecutor(8) as threads,
    ):
        held = [threads.submit(server.predict, {"n": n, "holds": str(gate)}) for n in range(2)]
        until(lambda: server.figure("infertool_gateway_in_broker") == 2)
        late = threads.submit(server.predict, {"n": 2}, headers={"request-timeout": "0.5"})
        with pytest.raises(httpx.ReadTimeout):
            server.predict({"n": 3}, timeout=0.5)
        assert (late.result(LONG).status_code, late.result().json()["reason"]) == (504, "expired")
        until(lambda: server.figure("infertool_gateway_waiting") == 0)
        gate.touch()
        assert {each.result(LONG).status_code for each in held} == {200}
        assert server.predict({"n": 4}).status_code == 200
        assert sorted(line.split()[0] for line in (tmp_path / "calls").read_text().splitlines()) == ["0", "1", "4"]


def test_a_stop_finishes_what_was_begun_and_refuses_the_rest(tmp_path: Path) -> None:
    spec, env = holding(tmp_path)
    gate = tmp_path / "gate"
    with serving(tmp_path, spec, **env) as server:
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(server.predict({"n": 1, "holds": str(gate)})))
        # A connection from before: none is accepted while it stops.
        with httpx.Client(base_url=server.url, timeout=LONG) as other:
            until(lambda: other.get("/readyz").status_code == 200)
            asking.start()
            until(lambda: (tmp_path / "calls").exists() and (tmp_path / "calls").read_text())
            server.running.process.send_signal(signal.SIGTERM)
            server.running.wait_for("stopping")
            until(lambda: other.get("/readyz").status_code == 503)
            gate.touch()
            asking.join(LONG)
        assert (answers[0].status_code, answers[0].json()) == (200, {"n": 1})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "no model to serve"),
        (("sim:", "--batch-size", "1", "--target-latency", "1s"), "consume.batch_size is 1"),
        (("sim:", "--listen", "0.0.0.0:0"), "reached by other machines"),
        (("sim:", "--listen", "nowhere:x"), "serve.listen"),
        (("sim:", "--keys-file", "/nonexistent/keys"), "keys_file"),
    ],
)
def test_what_is_refused_at_the_start(arguments: tuple[str, ...], told: str) -> None:
    ran = infertool("serve-model", *arguments)
    assert ran.returncode in {1, 2, 3}, ran.stderr
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr
