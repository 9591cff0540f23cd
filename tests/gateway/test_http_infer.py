"""`/v1`: waits, acceptances, streams, refusals, over a real socket and a fake engine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgpack
import pytest

from infertool.gateway.ids import Ids
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import State
from tests.gateway.front_server import LONG, FrontServer, read_all


@pytest.fixture(scope="module")
def server() -> Iterator[FrontServer]:
    with FrontServer(max_body_bytes=10_000, keys_file="keys", peers={"far": "https://far.example/"}) as running:
        yield running


@pytest.fixture
def client(server: FrontServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=LONG) as made:
        yield made


def infer(
    client: httpx.Client, body: Any = 1, path: str = "/v1/models/default/infer", **headers: str
) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, json=body, headers=names)


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_result_is_the_answer(client: httpx.Client) -> None:
    text = '{"a": 1.10, "n": 12345678901234567890123, "b": [1e3]}'
    headers = {"content-type": "application/json; charset=utf-8", "x-request-id": "mine", "prefer": "wait=7"}
    answer = client.post("/v1/models/other/infer", content=text, headers=headers)
    assert answer.status_code == 200
    assert f'"prediction":{text}' in answer.text
    document = answer.json()
    assert (document["status"], document["model"], document["class"]) == ("succeeded", "other", "standard")
    assert document["request_id"] == answer.headers["x-request-id"] == "mine"
    assert answer.headers["infertool-event-id"] == document["event_id"]
    assert answer.headers["preference-applied"] == "wait=7"
    assert answer.headers["ratelimit"] == '"default";r=9;t=1'

    found = client.get(f"/v1/requests/{document['event_id']}")
    assert (found.status_code, found.json()["prediction"]) == (200, document["prediction"])


def test_messagepack_comes_back_as_messagepack(client: httpx.Client) -> None:
    body = msgpack.packb({"x": b"\x00\xff"})
    answer = client.post(
        "/v1/infer", content=body, headers={"content-type": "application/msgpack", "infertool-model": "other"}
    )
    assert answer.headers["content-type"] == "application/msgpack"
    assert msgpack.unpackb(answer.content)["prediction"] == {"x": b"\x00\xff"}
    answer = client.post(
        "/v1/models/other/infer",
        content=body,
        headers={"content-type": "application/msgpack", "accept": "text/event-stream"},
    )
    assert '"prediction":{"x":"AP8="}' in answer.text


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("respond-async", "respond-async"),
        ("wait=0", "wait=0"),
        ('respond-async, wait="0.1"', "respond-async, wait=0.1"),
    ],
)
def test_who_does_not_wait_long_enough_gets_the_same_id_later(
    client: httpx.Client, server: FrontServer, prefer: str, applied: str
) -> None:
    answer = infer(client, "hold", prefer=prefer)
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, applied)
    assert (answer.headers["location"], answer.headers["retry-after"]) == (
        f"/v1/requests/{answer.json()['event_id']}",
        "2",
    )
    assert (answer.json()["status"], answer.json()["position"]) == ("queued", 3)
    path = answer.headers["location"]
    assert client.get(path).status_code == 202
    server.run(server.engine.finish(answer.json()["event_id"]))
    assert (client.get(path).status_code, client.get(path).json()["prediction"]) == (200, 1)


def test_a_failure_names_the_command_that_repairs_it(client: httpx.Client) -> None:
    answer = infer(client, "fail")
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert problem["replay"] == f"infertool replay-dlq --id {problem['event_id']}"
    told = [problem[name] for name in ("reason", "error_type", "stage", "retryable", "status")]
    assert told == ["inference_failed", "InferenceError", "infer", False, 500]
    found = client.get(f"/v1/requests/{problem['event_id']}")
    assert (found.status_code, found.json()["status"], found.json()["reason"]) == (200, "failed", "inference_failed")


@pytest.mark.parametrize(("state", "status"), [(State.EXPIRED, 504), (State.CANCELLED, 409)])
def test_what_ended_without_a_result(client: httpx.Client, server: FrontServer, state: State, status: int) -> None:
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(infer(client, "hold", x_api_key=state.value)))
    thread.start()
    wait_until(lambda: any(each.request.client == state.value for each in server.engine.known.values()))
    found = next(each for each in server.engine.known.values() if each.request.client == state.value)
    server.run(server.engine.finish(found.request.id, state, b""))
    thread.join(LONG)
    assert (answers[0].status_code, answers[0].json()["reason"]) == (status, state.value)


@pytest.mark.parametrize("content_type", ["application/json", "application/msgpack"])
def test_a_failure_of_another_make_is_told_as_text(
    client: httpx.Client, server: FrontServer, content_type: str
) -> None:
    headers = {"prefer": "respond-async"}
    path = client.post("/v1/models/default/infer", json="hold", headers=headers).headers["location"]
    said = {"error": b"\xff", "error_type": 7, "stage": None, "retryable": True}
    body = msgpack.packb(said) if "msgpack" in content_type else b'{"error":%b}' % (b"[" * 300 + b"]" * 300)
    request_id = path.rpartition("/")[2]
    server.run(server.engine.finish(request_id, State.FAILED, body, content_type))
    told = client.get(path).json()
    assert (told["status"], told["reason"], type(told["error"])) == ("failed", "inference_failed", str)


def test_delete_gives_a_request_up(client: httpx.Client) -> None:
    path = infer(client, "hold", prefer="respond-async").headers["location"]
    assert client.delete(path).json()["status"] == "cancelled"
    assert client.delete(path).json()["status"] == "cancelled"
    assert client.get(path).json()["status"] == "cancelled"


def test_the_requests_of_others_are_unknown(client: httpx.Client) -> None:
    path = infer(client, 1, x_api_key="ann").headers["infertool-event-id"]
    for method, where in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
        answer = client.request(method, f"/v1/requests/{path}{where}", headers={"x-api-key": "bob"})
        assert (answer.status_code, answer.json()["reason"]) == (404, "unknown_request")


def test_a_request_of_another_gateway_is_there(client: httpx.Client) -> None:
    theirs = Ids("far").new()
    answer = client.get(f"/v1/requests/{theirs}/events?x=1")
    assert (answer.status_code, answer.headers["location"]) == (
        307,
        f"https://far.example/v1/requests/{theirs}/events?x=1",
    )


def test_the_same_key_is_the_same_request(client: httpx.Client) -> None:
    first, second = (infer(client, [1], idempotency_key='"k1"', x_api_key="ida") for _ in range(2))
    assert first.json() == second.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    other = infer(client, [2], idempotency_key="k1", x_api_key="ida")
    assert (other.status_code, other.json()["reason"]) == (422, "idempotency_key_reused")


def test_limits_are_released_when_requests_end_or_fail(client: httpx.Client, server: FrontServer) -> None:
    held = [infer(client, "hold", prefer="respond-async", x_api_key="greedy").json()["event_id"] for _ in range(3)]
    answer = infer(client, 1, x_api_key="greedy")
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["reason"]) == (
        429,
        "1",
        "too_many_in_flight",
    )
    server.run(server.engine.finish(held[0]))
    assert infer(client, 1, x_api_key="greedy").status_code == 200
    for body in (b"{", b""):
        assert client.post("/v1/infer", content=body, headers={"content-type": "application/json"}).status_code == 400
    server.run(server.engine.finish(held[1]))
    server.run(server.engine.finish(held[2]))
    wait_until(lambda: not server.limits.held["greedy"])


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("no model", {"path": "/v1/infer"}, 400, "invalid_header"),
    ("unknown model", {"path": "/v1/models/none/infer"}, 404, "unknown_model"),
    ("two models", {"infertool_model": "other"}, 400, "invalid_header"),
    ("unknown class", {"infertool_class": "vip"}, 400, "unknown_class"),
    ("wrong key", {"x_api_key": "wrong"}, 401, "invalid_credentials"),
    ("no right", {"x_api_key": "no-default"}, 403, "model_forbidden"),
    ("html", {"content_type": "text/html"}, 415, "content_type"),
    ("utf-16", {"content_type": "application/json; charset=utf-16"}, 415, "content_type"),
    ("packed", {"content_encoding": "gzip"}, 415, "content_type"),
    ("not msgpack", {"content_type": "application/msgpack", "body": "\ud83d" * 0 + "xyz"}, 400, "invalid_body"),
    ("large", {"body": "x" * 10_001}, 413, "body_too_large"),
    ("timeout", {"request_timeout": "soon"}, 400, "invalid_header"),
    ("no time", {"request_timeout": "0"}, 400, "invalid_header"),
    ("long key", {"idempotency_key": "k" * 256}, 400, "idempotency_key_invalid"),
    ("key of one megabyte", {"idempotency_key": "k" * 1_000_000}, 431, "headers_too_large"),
    ("webhook", {"infertool_webhook": "http://x"}, 400, "webhook_refused"),
    ("accept", {"accept": "image/png"}, 406, "not_acceptable"),
    ("no path", {"path": "/v1/none"}, 404, "not_found"),
    ("slash", {"path": "/v1/infer/"}, 404, "not_found"),
    ("method", {"path": "/v1/requests/gw-1"}, 405, "method_not_allowed"),
]


@pytest.mark.parametrize(
    ("given", "status", "reason"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED]
)
def test_each_refusal_is_a_problem(client: httpx.Client, given: dict[str, Any], status: int, reason: str) -> None:
    try:
        answer = infer(client, **given)
    except httpx.TransportError:
        # The server closed while the rest of the headers came.
        assert reason == "headers_too_large"
        return
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["reason"]) == (status, status, reason)
    assert (answer.headers["content-type"], problem["title"]) == (
        "application/problem+json",
        Reason[reason.upper()].title,
    )
    if status != 431:
        assert answer.headers["x-request-id"]
    if status == 405:
        assert {each.strip() for each in answer.headers["allow"].split(",")} == {"GET", "HEAD", "DELETE"}
    if status == 401:
        assert answer.headers["www-authenticate"]


def test_a_fault_of_ours_is_a_problem_too(
    client: httpx.Client, server: FrontServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_request: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(server.engine, "submit", broken)
    answer = infer(client, x_api_key="unlucky")
    assert (answer.status_code, answer.json()["reason"]) == (500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in caplog.text
    assert server.limits.held["unlucky"] == 0


def test_the_engine_refuses_with_a_time(client: httpx.Client, server: FrontServer) -> None:
    server.engine.refusal = Problem(Reason.OVER_BUDGET, retry_after_s=7, members={"predicted_wait_s": 9.5})
    try:
        answer = infer(client)
    finally:
        server.engine.refusal = None
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["predicted_wait_s"]) == (429, "7", 9.5)
    assert server.counts.steps["enqueue", "over_budget", "standard"] == 1


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_a_stream_tells_each_state_and_goes_on_where_it_broke(client: httpx.Client, server: FrontServer) -> None:
    headers = {"accept": "text/event-stream", "content-type": "application/json"}
    with client.stream("POST", "/v1/models/default/infer", content='"hold"', headers=headers) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        path = answer.headers["location"]
        request_id = answer.headers["infertool-event-id"]
        lines = answer.iter_lines()
        seen = [next(lines) for _ in range(6)]
        assert "event: queued" in seen
        assert any('"position":3,"eta_ms":1500' in line for line in seen)
    server.run(server.engine.begin(request_id))
    server.run(server.engine.finish(request_id))
    again = client.get(f"{path}/events", headers={"last-event-id": "0"})
    assert [name for name, _ in events(again.text)] == ["result"]
    assert events(again.text)[0][1]["prediction"] == 1
    assert client.get(f"{path}/events", headers={"last-event-id": "2"}).status_code == 204
    failed = client.post("/v1/models/default/infer", content='"fail"', headers=headers)
    [(name, document)] = events(failed.text)
    assert (name, document["reason"], document["stage"]) == ("failed", "inference_failed", "infer")


@pytest.mark.parametrize("seen", ["7", "-1", "x" * 300])
def test_an_event_id_of_others_hides_nothing(client: httpx.Client, seen: str) -> None:
    path = f"/v1/requests/{infer(client).json()['event_id']}/events"
    assert [name for name, _ in events(client.get(path, headers={"last-event-id": seen}).text)] == ["result"]


def test_a_request_is_given_up_only_if_the_answer_can_be_taken(client: httpx.Client, server: FrontServer) -> None:
    path = infer(client, "hold", prefer="respond-async").headers["location"]
    assert client.delete(path, headers={"accept": "text/html"}).status_code == 406
    assert client.get(path).json()["status"] == "queued"
    assert client.delete(path).json()["status"] == "cancelled"


def test_a_client_that_hangs_up_is_told_to_the_engine(server: FrontServer) -> None:
    body = b'"hold"'
    line = server.raw(
        b"POST /v1/models/default/infer HTTP/1.1\r\nHost: x\r\nX-API-Key: leaver\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    wait_until(lambda: any(each.request.client == "leaver" for each in server.engine.known.values()))
    found = next(each for each in server.engine.known.values() if each.request.client == "leaver")
    wait_until(lambda: server.front.chain.waits)
    line.close()
    wait_until(lambda: found.request.id in server.engine.left)
    wait_until(lambda: not server.front.chain.waits)
    assert server.counts.hung_up["outcome"] == 1


def test_pages_of_operation(client: httpx.Client, server: FrontServer) -> None:
    assert (client.get("/livez").text, client.get("/readyz").text) == ("ok\n", "ok\n")
    server.ready = False
    answer = client.get("/readyz")
    server.ready = True
    assert (answer.status_code, answer.text) == (503, "broker: away\n")
    infer(client, infertool_class="batch")
    scrape = client.get("/metrics").text
    assert 'infertool_gateway_steps_total{class="batch",outcome="passed",step="enqueue"}' in scrape
    assert 'infertool_gateway_waiting{class="standard"} 2.0' in scrape
    assert 'infertool_gateway_response_duration_seconds_bucket{le="+Inf"}' in scrape
    page = client.get("/")
    assert "infertool gateway" in page.text
    assert "http" not in page.text.replace("httponly", ""), "an external resource"


def test_a_stop_answers_those_who_wait_and_sends_streams_elsewhere() -> None:
    with FrontServer() as server:
        answers: list[httpx.Response] = []
        streams: list[str] = []
        body = b'"hold"'

        def wait() -> None:
            answers.append(httpx.post(f"{server.url}/v1/models/default/infer", json="hold", timeout=LONG))

        def follow() -> None:
            head = b"POST /v1/models/default/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            accept = b"Accept: text/event-stream\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            streams.append(read_all(server.raw(head + accept)).decode())

        threads = [threading.Thread(target=wait), threading.Thread(target=follow)]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.front.chain.waits and len(server.engine.known) == 2)
        draining = threading.Thread(target=lambda: server.run(server.front.drain(1.0)))
        draining.start()
        wait_until(lambda: server.front.chain.draining)
        assert httpx.get(f"{server.url}/readyz").text == "draining: yes\n"
        refused = httpx.post(f"{server.url}/v1/models/default/infer", json=1)
        assert (refused.status_code, refused.json()["reason"]) == (503, "draining")
        for thread in [*threads, draining]:
            thread.join(LONG)
    assert (answers[0].status_code, answers[0].json()["status"]) == (202, "queued")
    assert "event: reconnect" in streams[0]
    assert streams[0].endswith("0\r\n\r\n")


def test_a_body_that_no_room_can_hold_is_too_large_at_any_time() -> None:
    with FrontServer(max_body_bytes=10_000, max_waiting_bytes=5_000) as running:
        for body in (b"1" * 5_001, iter([b"1" * 5_001])):
            found = httpx.post(
                f"{running.url}/v1/models/default/infer", content=body, headers={"content-type": "application/json"}
            )
            assert (found.status_code, found.json().get("limit")) == (413, 5_000), found.text
            assert "retry-after" not in found.headers
