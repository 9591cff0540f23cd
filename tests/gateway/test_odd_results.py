"""Results of consumers of another make, through a real gateway and broker: packed, no JSON, or no text at all."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import pytest
import zstandard

from infertool.message import BodyKind, Message, Outgoing, Properties
from tests.support.embedded import EmbeddedBroker
from tests.support.responder import Responder
from tests.support.running import LONG, PATIENT_GATEWAY, Running

JSON, MSGPACK, BYTES = "application/json", "application/msgpack", "application/octet-stream"


@dataclass(frozen=True)
class Told:
    """A reply, and what callers get: a `prediction`, or else the `body` in base64 with `kind` as its type."""

    body: bytes
    prediction: Any = None
    content_type: str | None = JSON
    encoding: str | None = None
    kind: str = JSON
    is_json: bool = True


REPLIES = {
    "gzip": Told(gzip.compress(b'{"a": 1}'), {"a": 1}, encoding="gzip"),
    "zstd": Told(zstandard.compress(b"[1.50]"), [1.5], encoding="zstd"),
    "a character set": Told(b"[1]", [1], encoding="utf-8"),
    "untyped": Told(b"[1]", [1], content_type=None),
    "JSON as text": Told(b"[1]", [1], content_type="text/plain"),
    "another JSON": Told(b"[1]", [1], content_type="application/vnd.x+json", kind="application/vnd.x+json"),
    "line breaks": Told(b'{\r\n"a":\n1}\n', {"a": 1}),
    "nothing": Told(b""),
    "text": Told(b"hello\r\nyou", content_type="text/plain", kind="text/plain", is_json=False),
    "text that says it is JSON": Told(b"hello\r\nyou", kind=BYTES, is_json=False),
    "no UTF-8": Told(b'"\xff"', kind=BYTES, is_json=False),
    "NaN": Told(b'{"a":NaN}', kind=BYTES, is_json=False),
    "two values": Told(b'1,"status":"failed"', kind=BYTES, is_json=False),
    "an image": Told(b"\x89PNG", content_type="image/png", kind="image/png", is_json=False),
    "nested deep": Told(b'{"a":' * 300 + b"0" + b"}" * 300, json.loads('{"a":' * 300 + "0" + "}" * 300)),
    "an unknown packing": Told(b"\x00\x01", encoding="br", kind=BYTES, is_json=False),
    "no MessagePack": Told(b"\xc1", content_type=MSGPACK, kind=BYTES, is_json=False),
}


def answer(message: Message) -> list[Outgoing]:
    asked = json.loads(message.body)["kind"]
    if asked == "msgpack":
        told = Told(msgspec.msgpack.encode([1, 2]), content_type="application/x-msgpack")
    elif asked == "broken gzip":
        told = Told(b"\x1f\x8b no", encoding="gzip")
    else:
        told = REPLIES[asked]
    properties = Properties(
        correlation_id=message.correlation_id, content_type=told.content_type, content_encoding=told.encoding,
        persistent=False,
    )  # fmt: skip
    return [Outgoing(message.properties.reply_to or "", told.body, BodyKind.BYTES, {}, properties)]


@pytest.fixture(scope="module")
def http(embedded_broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("odd")
    queue = ("--broker", embedded_broker.url, "--queue", "odd.requests")
    options = ("--listen", "0", *queue, "--state-dir", str(folder / "s"), "-o", "json")
    gateway = Running(folder / "g", "gateway", *options, **PATIENT_GATEWAY)
    try:
        assert gateway.process.stdout
        url = str(json.loads(gateway.process.stdout.readline())["url"])
        with (
            Responder(embedded_broker.url, "odd.requests", answer),
            httpx.Client(base_url=url, timeout=LONG, headers={"request-timeout": "100"}) as client,
        ):
            yield client
    finally:
        gateway.kill()


@pytest.mark.parametrize("kind", REPLIES)
def test_a_document_is_json_whatever_the_result_is(http: httpx.Client, kind: str) -> None:
    told = REPLIES[kind]
    found = http.post("/v1/infer", json={"kind": kind}, headers={"prefer": "wait=60"})
    assert (found.status_code, found.headers["content-type"]) == (200, JSON)
    document = found.json()
    assert document["status"] == "succeeded"
    if told.is_json:
        assert document["prediction"] == told.prediction
        assert "body_base64" not in document
    else:
        assert (document["content_type"], base64.b64decode(document["body_base64"])) == (told.kind, told.body)
        assert "prediction" not in document

    assert http.get(f"/v1/requests/{document['event_id']}").json() == document
    events = http.get(f"/v1/requests/{document['event_id']}/events").text.strip().split("\n")
    assert json.loads(events[-1].removeprefix("data: ")) == document

    plain = http.post("/predict", json={"kind": kind})
    assert plain.status_code == 200
    assert plain.headers["content-type"].partition(";")[0] == told.kind
    assert (plain.json() if told.is_json else plain.content) == (told.prediction if told.is_json else told.body)


def test_a_result_in_messagepack_under_another_name(http: httpx.Client) -> None:
    found = http.post("/v1/infer", json={"kind": "msgpack"}, headers={"prefer": "wait=60"})
    assert found.headers["content-type"] == MSGPACK
    assert msgspec.msgpack.decode(found.content)["prediction"] == [1, 2]


def test_a_reply_that_cannot_be_unpacked_is_a_failure(http: httpx.Client) -> None:
    found = http.post("/v1/infer", json={"kind": "broken gzip"}, headers={"prefer": "wait=60"})
    problem = found.json()
    assert (found.status_code, problem["reason"], problem["stage"]) == (500, "inference_failed", "reply")
    assert "not gzip" in problem["error"]
    assert "replay" not in problem


def v2(http: httpx.Client, kind: str) -> httpx.Response:
    tensor = {"name": "kind", "datatype": "BYTES", "shape": [], "data": [kind]}
    return http.post("/v2/models/default/infer", json={"inputs": [tensor]})


@pytest.mark.parametrize("kind", ["gzip", "zstd", "untyped", "msgpack"])
def test_the_v2_protocol_takes_packed_results(http: httpx.Client, kind: str) -> None:
    found = v2(http, kind)
    assert found.status_code == 200, found.text
    assert found.json()["outputs"]


@pytest.mark.parametrize("kind", ["text", "NaN", "an image", "no MessagePack", "nested deep"])
def test_the_v2_protocol_says_that_the_result_is_no_tensor(http: httpx.Client, kind: str) -> None:
    found = v2(http, kind)
    assert (found.status_code, found.json()["reason"]) == (500, "inference_failed")
    assert "tensor" in found.json()["error"]
