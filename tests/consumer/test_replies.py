"""Requests and replies on the broker in process: each request is answered, and what cannot be answered harms nobody."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgpack
import numpy as np
import pytest

from infertool import codec
from infertool.brokers.memory.adapter import CAPABILITIES
from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Server
from infertool.codec import JSON, MSGPACK, Codec
from infertool.consumer.attempt import Event
from infertool.consumer.documents import Documents
from infertool.consumer.processes.pool import Processes
from infertool.consumer.processes.wire import WorkerConfig
from infertool.consumer.worker import Threads, WorkerPool
from infertool.errors import InferenceError
from infertool.message import BodyKind
from infertool.models.loader import open_model
from infertool.publishers.local import discard
from infertool.settings import ModelSettings
from tests.consumer.harness import LONG, wait_until
from tests.consumer.service import (
    ANSWERS,
    CODECS,
    DEAD,
    QUEUE,
    Phoenix,
    Serve,
    Service,
    answer,
    answers,
    ask,
    hurry,
    new_server,
    settled,
    value_of,
)

COMBINATIONS = [
    {"atomic_move": atomic, "delivery_count": counted, "expiry": expiry, "reply_addresses": addresses}
    for atomic, counted, expiry, addresses in itertools.product((True, False), repeat=4)
]


@pytest.mark.parametrize("changes", COMBINATIONS, ids=lambda changes: "-".join(str(each) for each in changes.values()))
def test_requests_are_answered_whatever_the_broker_can_do(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    with new_server(replace(CAPABILITIES, **changes)) as server:
        service = Service(server, tmp_path, lambda payload: 1 / payload["x"])
        for number in range(30):
            ask(server, json.dumps({"x": number % 3}).encode(), correlation_id=f"c{number}")
        settled(server)
        service.end()
        got = {reply.properties.correlation_id: reply.headers["status"] for reply in answers(server, 30)}
        assert got == {f"c{number}": "SUCCESS" if number % 3 else "FAILED" for number in range(30)}
        assert len(server.held(ANSWERS)) == 30
        assert len(server.held(DEAD)) == 10
        assert service.counts["replied"] == 30


@CODECS
@pytest.mark.parametrize("value", [{"a": [1, None]}, [1, 2], "text", 0, None, False, "", [], {}])
def test_any_value_is_a_request_and_the_reply_is_the_result_itself(
    server: Server, serve: Serve, used: Codec, value: Any
) -> None:
    serve(lambda payload: payload)
    ask(server, used.encode(value), content_type=used.content_type)
    reply = answer(server)
    assert reply.body == used.encode(value)
    assert reply.properties.content_type == used.content_type
    assert reply.properties.correlation_id == "c"
    assert reply.headers.keys() == {"status", "event_id", "processing_ms"}
    assert reply.headers["status"] == "SUCCESS"
    assert float(reply.headers["processing_ms"]) >= 0
    settled(server)


def test_the_usual_pair_names_no_content_type(server: Server, serve: Serve) -> None:
    service = serve(lambda args: {"sum": sum(args), "raw": b"\xff", "at": np.arange(3)}, default="msgpack")
    ask(server, msgpack.packb([1, 2, 3]))
    reply = answer(server)
    assert msgpack.unpackb(reply.body) == {"sum": 6, "raw": b"\xff", "at": [0, 1, 2]}
    assert (reply.kind, reply.properties.content_type) == (BodyKind.BYTES, "application/msgpack")
    settled(server)
    assert service.counts["succeeded"] == 1


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_packed_request(server: Server, serve: Serve, encoding: str) -> None:
    serve(lambda payload: payload["a"])
    ask(server, codec.packed(b'{"a": [1]}', encoding), content_encoding=encoding)
    assert value_of(answer(server)) == [1]


def test_without_a_correlation_id_the_message_id_takes_its_place(server: Server, serve: Serve) -> None:
    serve(lambda _: 1)
    ask(server, b"{}", correlation_id=None)
    ask(server, b"{}", correlation_id=None, message_id="given")
    assert [reply.properties.correlation_id for reply in answers(server, 2)] == [f"{server.name}:1", "given"]


def test_the_outcome_form_sends_the_whole_document(server: Server, serve: Serve) -> None:
    def model(payload: Any) -> Any:
        return {"raw": b"\xff"} if payload["ok"] else 1 / 0

    serve(model, reply_form="outcome", max_attempts=1, concurrency=1)
    for ok in (True, False):
        ask(server, MSGPACK.encode({"ok": ok, "event_id": "e"}), content_type="application/x-msgpack")
    ask(server, b'{"ok": false, "event_id": "j"}')
    good, bad, in_json = map(value_of, answers(server, 3))
    assert (good["status"], good["prediction"], good["event_id"]) == ("SUCCESS", {"raw": b"\xff"}, "e")
    assert (bad["status"], bad["error_type"], bad["stage"]) == ("FAILED", "ZeroDivisionError", "infer")
    assert (in_json["status"], in_json["event_id"], in_json["original_payload"]["ok"]) == ("FAILED", "j", False)


def raising(error: Exception) -> Callable[[Any], Any]:
    def model(_: Any) -> Any:
        raise error

    return model


@CODECS
@pytest.mark.parametrize(
    ("error", "error_type", "retryable"),
    [
        (InferenceError("no such customer", retryable=False), "InferenceError", False),
        (ValueError("broken"), "ValueError", True),
    ],
)
def test_a_failure_is_a_typed_reply_and_a_dead_letter(
    server: Server, serve: Serve, used: Codec, error: Exception, error_type: str, retryable: bool
) -> None:
    service = serve(raising(error), max_attempts=2)
    ask(server, used.encode({"event_id": "e1"}), content_type=used.content_type)
    reply = answer(server)
    assert value_of(reply) == {
        "status": "FAILED", "error": str(error), "error_type": error_type, "stage": "infer", "retryable": retryable,
        "event_id": "e1",
    }  # fmt: skip
    assert (reply.headers, reply.properties.content_type) == ({"status": "FAILED", "event_id": "e1"}, used.content_type)
    settled(server)
    [letter] = server.held(DEAD)
    assert letter.outgoing.body == used.encode({"event_id": "e1"})
    wait_until(lambda: service.counts["dead_lettered"] == 1)


@CODECS
def test_an_error_of_any_text_is_answered(server: Server, serve: Serve, used: Codec) -> None:
    serve(raising(InferenceError("lone \ud800 surrogate " + "x" * 100_000, retryable=False)))
    ask(server, used.encode({}), content_type=used.content_type)
    error = value_of(answer(server))["error"]
    assert error.startswith("lone \N{REPLACEMENT CHARACTER} surrogate x")
    assert len(error) < 2000
    settled(server)


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "error_type"),
    [
        (b"{broken", "application/json", None, "NotJson"),
        (b"\xff", "text/plain", None, "NotUtf8"),
        (b"", "application/msgpack", None, "EmptyBody"),
        (b"\xc1", "application/msgpack", None, "NotMsgpack"),
        (msgpack.packb(msgpack.ExtType(5, b"x")), "application/msgpack", None, "UnknownExtension"),
        (bytes(3000), "application/msgpack", None, "TooLarge"),
        (codec.packed(bytes(100_000), "gzip"), "application/msgpack", "gzip", "TooLarge"),
        (codec.packed(bytes(100_000), "zstd"), "application/json", "zstd", "TooLarge"),
        (b"plain", "application/json", "gzip", "NotGzip"),
    ],
)
def test_what_cannot_be_read_is_answered(
    server: Server, serve: Serve, body: bytes, content_type: str, encoding: str | None, error_type: str
) -> None:
    serve(lambda _: 1, max_body_bytes=2000)
    ask(server, body, content_type=content_type, content_encoding=encoding)
    reply = answer(server)
    assert reply.properties.content_type == ("application/json" if "text" in content_type else content_type)
    assert value_of(reply).items() >= {"stage": "decode", "error_type": error_type, "retryable": False}.items()
    settled(server)
    assert len(server.held(DEAD)) == 1


@pytest.mark.parametrize(
    ("used", "result"), [(JSON, {"raw": b"\xff"}), (JSON, object()), (MSGPACK, 1 << 64), (MSGPACK, [object()])]
)
def test_a_result_that_the_codec_cannot_hold_is_a_failure(
    server: Server, serve: Serve, used: Codec, result: Any
) -> None:
    serve(lambda _: result)
    ask(server, used.encode({}), content_type=used.content_type)
    assert value_of(answer(server)).items() >= {"stage": "infer", "error_type": "UnencodableResult"}.items()
    settled(server)
    assert len(server.held(DEAD)) == 1


def test_replies_and_phoenix_together(server: Server, serve: Serve) -> None:
    phoenix = Phoenix()
    service = serve(lambda payload: 1 / payload["x"], publisher=phoenix, max_attempts=1)
    for number in range(4):
        reply_to = ANSWERS if number < 2 else None
        ask(server, json.dumps({"x": number % 2}).encode(), reply_to=reply_to, headers={"event_id": f"e{number}"})
    settled(server)
    assert {reply.headers["event_id"]: reply.headers["status"] for reply in answers(server, 2)} == {
        "e0": "FAILED",
        "e1": "SUCCESS",
    }
    assert sorted(phoenix.published) == [
        ("inference_failed", "e0"),
        ("inference_failed", "e2"),
        ("new_result", "e1"),
        ("new_result", "e3"),
    ]
    assert len(server.held(DEAD)) == 2
    assert (service.counts["succeeded"], service.counts["replied"]) == (2, 2)


def test_a_result_that_phoenix_refuses_has_one_reply_and_a_dead_letter(server: Server, serve: Serve) -> None:
    phoenix = Phoenix(frozenset({"e"}))
    service = serve(lambda _: {"ok": True}, publisher=phoenix)
    ask(server, b'{"event_id": "e"}')
    settled(server)
    assert len(server.held(DEAD)) == 1
    assert value_of(answer(server)) == {"ok": True}
    assert Counter(phoenix.published) == {("new_result", "e"): 3, ("inference_failed", "e"): 1}
    assert not service.consumer._publisher._states  # type: ignore[attr-defined]


def test_an_event_that_asks_for_no_reply_goes_the_normal_way(server: Server, serve: Serve) -> None:
    service = serve(lambda payload: payload)
    ask(server, b"{}", reply_to=None)
    ask(server, b"{broken", reply_to=None)
    settled(server)
    wait_until(lambda: service.counts["dead_lettered"] == 1)
    assert (service.counts["succeeded"], service.counts["replied"], service.counts["replies_lost"]) == (1, 0, 0)


def test_duplicate_correlation_ids_are_the_callers_business(server: Server, serve: Serve) -> None:
    serve(lambda payload: payload["n"])
    for number in range(20):
        ask(server, json.dumps({"n": number}).encode(), correlation_id="same")
    assert sorted(value_of(reply) for reply in answers(server, 20)) == list(range(20))
    settled(server)
    assert len(server.held(ANSWERS)) == 20


@pytest.mark.parametrize("effect", list(Effect))
@pytest.mark.parametrize("operation", [Operation.SEND, Operation.ACK, Operation.COMMIT])
def test_each_request_is_answered_and_acked_after_its_reply(
    server: Server, serve: Serve, operation: Operation, effect: Effect
) -> None:
    """A reply whose confirmation was lost may come twice; none is missing, and nothing is sent again without end."""
    service = serve(lambda payload: payload["n"])
    if not (operation is Operation.SEND and effect is Effect.REFUSE):
        service.address.faults.plan(operation, effect, times=3, skip=2)
    for number in range(40):
        ask(server, json.dumps({"n": number}).encode(), correlation_id=f"c{number}")
    settled(server)
    service.end()
    got = Counter(reply.properties.correlation_id for reply in answers(server, 40))
    assert set(got) == {f"c{number}" for number in range(40)}
    # At most those that were on their way at one of the three faults.
    assert got.total() <= 40 + 3 * 3
    assert not server.held(DEAD)


def test_a_redelivered_request_is_not_answered_again(server: Server, serve: Serve) -> None:
    """The connection is lost between the confirmed reply and the ack."""
    service = serve(lambda payload: payload, concurrency=1)
    service.address.faults.plan(Operation.ACK, Effect.CUT_BEFORE)
    ask(server, b"{}")
    settled(server)
    service.end()
    assert len(server.held(ANSWERS)) == 1
    assert service.counts["recognised"] == 1


def test_nothing_is_acked_before_its_reply_is_confirmed(server: Server, serve: Serve) -> None:
    service = serve(lambda payload: payload)
    service.address.faults.plan(Operation.SEND, Effect.SILENCE, times=1)
    ask(server, b"{}")
    wait_until(lambda: server.held(ANSWERS))
    assert server.held(QUEUE)
    settled(server)
    assert service.counts["succeeded"] == 1


SERVICE = """
__version__ = "2026.11"

def predict(payload):
    return payload

def predict_batch(payloads):
    if any(payload == "fail" for payload in payloads):
        raise ValueError("not this one")
    return payloads
"""


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_every_executor_replies_in_every_codec(
    server: Server, serve: Serve, tmp_path: Path, executor: Literal["threads", "processes"], batch_size: int
) -> None:
    """Results that are no object, bytes, and packed requests, also out of worker processes and batches."""
    (tmp_path / "service.py").write_text(SERVICE)
    spec = f"{tmp_path / 'service.py'}:" + ("predict" if batch_size == 1 else "Service")
    if batch_size > 1:
        with (tmp_path / "service.py").open("a") as file:
            file.write("\nclass Service:\n    predict = staticmethod(predict)\n")
            file.write("    predict_batch = staticmethod(predict_batch)\n")
    model = ModelSettings(spec=spec)
    phoenix = Phoenix()
    options: dict[str, Any] = {"executor": executor, "batch_size": batch_size, "max_attempts": 1, "workers": 2}
    with ExitStack() as stack:
        if executor == "processes":
            config = WorkerConfig(model, batch_size > 1, 0, 0)
            pool: WorkerPool = stack.enter_context(Processes(config, 2, lambda _: None))
        else:
            pool = Threads(open_model(model), in_batches=batch_size > 1)
        service = serve(discard, pool=pool, publisher=phoenix, **options)
        values: list[Any] = [{"a": b"\xff"}, [b"\x00", 1.5], b"raw", None, 0, {1: {"k": []}}]
        for number, value in enumerate(values):
            ask(server, MSGPACK.encode(value), content_type="application/msgpack", correlation_id=f"m{number}")
        texts: list[Any] = [{"a": 1}, [1, "x"], "text", None, 0]
        for number, value in enumerate(texts):
            body = codec.packed(JSON.encode(value), "gzip")
            ask(server, body, content_encoding="gzip", correlation_id=f"j{number}")
        if batch_size > 1:
            ask(server, b'"fail"', correlation_id="fail")
        wanted = {f"m{number}": value for number, value in enumerate(values)}
        wanted |= {f"j{number}": value for number, value in enumerate(texts)}
        got = answers(server, len(wanted) + (batch_size > 1))
        settled(server)
        service.end()
    assert {reply.headers["model_version"] for reply in got} == {"2026.11"}
    assert {payload["model_version"] for payload in phoenix.payloads} == {"2026.11"}
    replies = {reply.properties.correlation_id: value_of(reply) for reply in got}
    if batch_size > 1:
        assert replies.pop("fail")["error"] == "not this one"
    assert replies == wanted
    assert len(phoenix.published) == len(got)


def test_servers_share_requests_fairly(server: Server, serve: Serve) -> None:
    """None holds a request that it does not work on, while another is idle."""
    release, running = threading.Event(), threading.Semaphore(0)

    def model(_: Any) -> Any:
        running.release()
        release.wait(LONG)
        return 1

    for _ in range(3):
        serve(model, concurrency=2)
    for _ in range(6):
        ask(server, b"{}")
    for _ in range(6):
        assert running.acquire(timeout=LONG)
    release.set()
    settled(server)
    assert len(answers(server, 6)) == 6


def test_a_document_that_nobody_reads_is_not_made(
    server: Server, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    result = Documents.result

    def noted(documents: Documents, event: Event, *rest: Any) -> bytes:
        made.append(event.event_id)
        return result(documents, event, *rest)

    monkeypatch.setattr(Documents, "result", noted)
    service = serve(lambda payload: payload)
    ask(server, b'{"event_id": "asked"}')
    assert value_of(answer(server)) == {"event_id": "asked"}
    ask(server, b'{"event_id": "unasked"}', reply_to=None)
    wait_until(lambda: service.counts["succeeded"] == 2)
    assert made == ["unasked"]
