"""Requests and replies on the broker in process: each request is answered, and what cannot be answered harms nobody."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgpack
import numpy as np
import pytest

from infertool import brokers, codec
from infertool.brokers.memory.adapter import CAPABILITIES
from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Server
from infertool.codec import JSON, MSGPACK, Codec
from infertool.consumer import consumer as consumer_module
from infertool.consumer import dead_letter_writer, in_flight, requests
from infertool.consumer.consumer import Consumer, Until
from infertool.consumer.processes.pool import Processes
from infertool.consumer.processes.wire import WorkerConfig
from infertool.consumer.requests import deadline_ms
from infertool.consumer.router import Published
from infertool.consumer.worker import Threads, WorkerPool
from infertool.errors import InferenceError
from infertool.message import BodyKind, Message, Outgoing, Properties, TypedMessage
from infertool.models.loader import open_model
from infertool.models.port import LoadedModel
from infertool.net.timing import FullJitter
from infertool.publishers import reply as reply_module
from infertool.publishers.local import LocalPublisher, discard
from infertool.publishers.port import Publication, Publisher, Rejection
from infertool.settings import ModelSettings, Settings
from infertool.settings.tree import (
    BrokerSettings,
    ConsumeSettings,
    ContractSettings,
    DeadLetterSettings,
    PublishSettings,
)
from infertool.telemetry import signals as o
from infertool.telemetry.logs import LogObserver
from infertool.telemetry.stats import Stats
from tests.consumer.harness import LONG, wait_until

_numbers = itertools.count(1)
QUEUE, DEAD, ANSWERS = "requests", "dead", "answers"
CODECS = pytest.mark.parametrize("used", [JSON, MSGPACK], ids=lambda used: used.name)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    _hurry(monkeypatch)
    with Server(f"replies-{next(_numbers)}") as server:
        yield server


def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "POLL_S", 0.005)
    monkeypatch.setattr(in_flight, "POLL_S", 0.005)
    monkeypatch.setattr(reply_module, "AGAIN", FullJitter(0.001, 0.01))
    for name in ("REFUSED_BACKOFF", "ALONE_BACKOFF"):
        monkeypatch.setattr(dead_letter_writer, name, FullJitter(0.001, 0.01))


class Service:
    """A consumer that replies, in a thread."""

    def __init__(
        self,
        server: Server,
        state_dir: Path,
        model: Callable[[Any], Any],
        *,
        publisher: Publisher[Published] | None = None,
        pool: WorkerPool | None = None,
        default: str = "json",
        **consume: Any,
    ) -> None:
        self.address = server.new_address()
        self.stats = Stats()
        self.signals: list[o.Signal] = []
        settings = Settings(
            broker=BrokerSettings(
                url=self.address.url, queue=QUEUE, receipt_timeout_s=0.3, reconnect_base_s=0.001, reconnect_max_s=0.01
            ),
            deadletter=DeadLetterSettings(queue=DEAD),
            contract=ContractSettings(format=default),
            publish=PublishSettings(mode="phoenix" if publisher else "none"),
            consume=ConsumeSettings(
                reply=True,
                retry_base_s=0.001,
                retry_max_s=0.002,
                stop_deadline_s=LONG,
                **{"concurrency": 3, **consume},
            ),
        )
        self.consumer = Consumer(
            settings,
            pool or Threads(LoadedModel("m", "m", model), in_batches=False),
            open_broker=lambda on_connection: brokers.open(settings.broker, on_connection=on_connection),
            publisher=publisher or LocalPublisher("null", discard),
            name="c",
            state_dir=state_dir,
            observe=self._observe,
            until=Until(),
        )
        self._thread = threading.Thread(target=self.consumer.run)
        self._thread.start()

    def _observe(self, signal: o.Signal) -> None:
        self.stats(signal)
        self.signals.append(signal)

    @property
    def counts(self) -> dict[str, int]:
        return self.stats.snapshot().counts

    def end(self) -> None:
        self.consumer.stop()
        self._thread.join(LONG)
        assert not self._thread.is_alive()
        assert self.consumer._fatal is None


Serve = Callable[..., Service]


@pytest.fixture
def serve(server: Server, tmp_path: Path) -> Iterator[Serve]:
    running: list[Service] = []

    def serve(model: Callable[[Any], Any], **options: Any) -> Service:
        running.append(Service(server, tmp_path / f"{len(running)}", model, **options))
        return running[-1]

    yield serve
    for each in running:
        each.end()


def ask(
    server: Server,
    body: bytes,
    *,
    reply_to: str | None = ANSWERS,
    correlation_id: str | None = "c",
    headers: dict[str, str] | None = None,
    **properties: Any,
) -> None:
    known = Properties(reply_to=reply_to, correlation_id=correlation_id, **properties)
    server.send(Outgoing(QUEUE, body, BodyKind.BYTES, headers or {}, known))


def answers(server: Server, count: int = 1) -> list[Outgoing]:
    wait_until(lambda: len(server.held(ANSWERS)) >= count)
    return [stored.outgoing for stored in server.held(ANSWERS)]


def answer(server: Server) -> Outgoing:
    [only] = answers(server)
    return only


def value_of(reply: Outgoing) -> Any:
    used = codec.for_content_type(reply.properties.content_type or "")
    assert used is not None
    return codec.decode(used, reply.body)


def settled(server: Server) -> None:
    wait_until(lambda: not server.held(QUEUE))


COMBINATIONS = [
    {"atomic_move": atomic, "delivery_count": counted, "expiry": expiry, "reply_addresses": addresses}
    for atomic, counted, expiry, addresses in itertools.product((True, False), repeat=4)
]


@pytest.mark.parametrize("changes", COMBINATIONS, ids=lambda changes: "-".join(str(each) for each in changes.values()))
def test_requests_are_answered_whatever_the_broker_can_do(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hurry(monkeypatch)
    with Server(f"replies-{next(_numbers)}", replace(CAPABILITIES, **changes)) as server:
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
    assert service.counts["dead_lettered"] == 1


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


class Phoenix(LocalPublisher[Published]):
    """Confirms at once, and notes what it gets; the events in `refused` are rejected."""

    def __init__(self, refused: frozenset[str] = frozenset()) -> None:
        super().__init__("Phoenix", discard)
        self.refused = refused
        self.published: list[tuple[str, str]] = []

    def publish(self, publications: Sequence[Publication[Published]], *, crashes: int = 0) -> None:
        self.published += [(each.event, each.event_id) for each in publications]
        rejected = [each for each in publications if each.event_id in self.refused and each.event == "new_result"]
        super().publish([each for each in publications if each not in rejected], crashes=crashes)
        if rejected:
            self._on_settled((), [Rejection(each, "it does not fit") for each in rejected])


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


@pytest.mark.parametrize("reply_to", ["/topic/a", "a,b", "with space", "/queue/", "a/b" * 3000, "no*wildcard"])
def test_a_reply_to_that_is_no_queue_is_counted_and_harms_nobody(server: Server, serve: Serve, reply_to: str) -> None:
    service = serve(lambda payload: payload)
    ask(server, b"{}", reply_to=reply_to)
    ask(server, b'{"x": 1}', correlation_id="next")
    assert answer(server).properties.correlation_id == "next"
    settled(server)
    wait_until(lambda: service.counts["replies_lost"] == 1)
    assert (service.counts["succeeded"], service.counts["replied"], len(server.held(DEAD))) == (2, 1, 0)


def test_a_header_that_the_broker_cannot_carry_is_left_out(
    server: Server, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(lambda payload: payload)
    fits = lambda _self, _name, value: len(value) < 100  # noqa: E731
    monkeypatch.setattr(type(service.consumer._broker.conventions), "fits", fits)
    ask(server, json.dumps({"event_id": "e" * 5000}).encode())
    assert answer(server).headers.keys() == {"status", "processing_ms"}


def test_queues_that_are_gone_or_must_not_be_written_to(server: Server, serve: Serve) -> None:
    service = serve(lambda payload: 1 / payload["x"], max_attempts=1)
    service.address.faults.refuse_queue("private", "access refused for this user")
    for x, reply_to in itertools.product((0, 1), ("private", "replies:999")):
        ask(server, json.dumps({"x": x}).encode(), reply_to=reply_to)
    settled(server)
    wait_until(lambda: service.counts["replies_lost"] == 4)
    assert (service.counts["succeeded"], service.counts["dead_lettered"]) == (2, 2)
    assert {each.reason for each in service.signals if isinstance(each, o.ReplyLost)} > {"access refused for this user"}


def test_ten_thousand_replies_that_nobody_waits_for(
    server: Server, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("infertool.telemetry.logs._write", lambda _level, text, _fields: lines.append(text))
    service = serve(lambda payload: payload)
    log = LogObserver()
    for number in range(10_000):
        ask(server, b"{}", reply_to="replies:999", correlation_id=f"c{number}")
    settled(server)
    wait_until(lambda: service.counts["replies_lost"] == 10_000)
    assert (service.counts["succeeded"], len(server.held(DEAD))) == (10_000, 0)
    joined = service.consumer._publisher
    assert not joined._states  # type: ignore[attr-defined]
    assert joined.pending().count == 0
    assert len([thread for thread in threading.enumerate() if "repl" in thread.name]) == 1
    for signal in service.signals:
        log(signal)
    log.close()
    told = [line for line in lines if "cannot be delivered" in line]
    assert 1 <= len(told) <= 10


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


def message(properties: Properties, headers: dict[str, str] | None = None) -> Message:
    return TypedMessage("m", "q", headers or {}, b"{}", BodyKind.TEXT, False, 1, "t", known=properties)


NOW_S = 1_800_000_000.25


@pytest.mark.parametrize(
    ("properties", "header", "expected_ms"),
    [
        (Properties(), None, None),
        (Properties(expires_ms=1_800_000_000_123), None, 1_800_000_000_123),
        (Properties(timestamp_ms=1_800_000_000_001, ttl_ms=500), None, 1_800_000_000_501),
        # Whole seconds: up to one was cut off.
        (Properties(timestamp_ms=1_800_000_000_000, ttl_ms=500), None, 1_800_000_001_499),
        # Without a timestamp from its arrival here, which is late but never early.
        (Properties(ttl_ms=500), None, NOW_S * 1000 + 500),
        (Properties(), "1800000000", 1_800_000_000_000),
        (Properties(), "1800000000.5", 1_800_000_000_500),
        (Properties(), "1800000000500", 1_800_000_000_500),
        (Properties(), "2027-01-15T08:00:00Z", 1_800_000_000_000),
        (Properties(), "2027-01-15T10:00:00+02:00", 1_800_000_000_000),
        (Properties(), "2027-01-15T08:00:00", 1_800_000_000_000),
        (Properties(expires_ms=5), "1800000000", 5),
        *((Properties(), text, None) for text in ("", "soon", "nan", "inf", "-inf", "2027-99-99", "1e999")),
    ],
)
def test_deadlines(properties: Properties, header: str | None, expected_ms: float | None) -> None:
    headers = {} if header is None else {"deadline": header}
    assert deadline_ms(message(properties, headers), NOW_S) == expected_ms


def _past() -> dict[str, dict[str, Any]]:
    now_ms = int(time.time() * 1000)
    ago = datetime.now(UTC) - timedelta(seconds=2)
    return {
        "lifetime": {"timestamp_ms": now_ms - 5001, "ttl_ms": 1000},
        "seconds": {"headers": {"deadline": str(now_ms / 1000 - 1)}},
        "milliseconds": {"headers": {"deadline": str(now_ms - 1)}},
        "iso": {"headers": {"deadline": ago.isoformat()}},
    }


@CODECS
@pytest.mark.parametrize("way", list(_past()))
def test_an_expired_request_is_answered_without_the_model(server: Server, serve: Serve, used: Codec, way: str) -> None:
    phoenix = Phoenix()
    calls: list[Any] = []
    service = serve(calls.append, publisher=phoenix)
    ask(server, used.encode({"event_id": "e"}), content_type=used.content_type, **_past()[way])
    reply = answer(server)
    assert reply.headers == {"status": "EXPIRED", "event_id": "e"}
    assert value_of(reply).items() >= {
        "status": "EXPIRED", "stage": "expired", "error_type": "Expired", "retryable": False, "event_id": "e",
    }.items()  # fmt: skip
    settled(server)
    wait_until(lambda: service.counts["expired"] == 1)
    assert not calls
    assert not (phoenix.published)
    assert not (server.held(DEAD))
    assert service.stats.snapshot().settled == 1


def test_what_is_not_expired_or_no_request_is_run(server: Server, serve: Serve) -> None:
    service = serve(lambda payload: payload)
    past, future = _past()["seconds"]["headers"], {"deadline": str(time.time() + 1000)}
    ask(server, b"{}", headers=future)
    ask(server, b"{}", headers={"deadline": "soon"})
    ask(server, b"{}", headers=past, reply_to=None)
    # Whoever replays it wants it done.
    ask(server, b"{}", headers={**past, "original_message_id": "old"})
    settled(server)
    wait_until(lambda: service.counts["succeeded"] == 4)
    assert service.counts["expired"] == 0


def test_a_request_that_expires_between_two_tries(server: Server, serve: Serve) -> None:
    tried = threading.Event()
    ended = time.time() + 0.2

    def model(_: Any) -> Any:
        tried.set()
        time.sleep(max(0.0, ended - time.time()) + 0.01)
        raise ValueError("try again")

    service = serve(model, max_attempts=100)
    ask(server, b"{}", headers={"deadline": str(ended)})
    assert answer(server).headers["status"] == "EXPIRED"
    settled(server)
    assert not server.held(DEAD)
    assert service.counts["expired"] == 1


class Caller:
    """A connection with a queue for replies."""

    def __init__(self, server: Server) -> None:
        settings = BrokerSettings(url=server.new_address().url)
        self.broker = brokers.open(settings)
        self.broker.connect()
        self.got: list[Message] = []
        self.replies = self.broker.open_replies(self.got.extend)
        assert self.replies.address
        self.address: str = self.replies.address

    def leave(self) -> None:
        self.broker.close(1.0)


def test_a_caller_that_is_gone_is_noticed_before_a_slow_model(
    server: Server, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "SLOW_S", 0.0)
    calls: list[Any] = []
    here, gone = Caller(server), Caller(server)
    gone.leave()
    # Only workers ask: the thread that reads must not wait.
    service = serve(lambda payload: calls.append(payload["n"]), concurrency="auto", max_concurrency=1)
    ask(server, b'{"n": 1}', reply_to=here.address)
    wait_until(lambda: here.got)
    here.got.clear()
    calls.clear()
    for number in range(20):
        ask(server, b'{"n": %d}' % number, reply_to=(here if number % 2 else gone).address)
    settled(server)
    wait_until(lambda: len(here.got) == 10)
    wait_until(lambda: service.counts["caller_gone"] == 10)
    assert sorted(calls) == list(range(1, 20, 2))
    assert (service.counts["succeeded"], service.counts["replies_lost"], len(server.held(DEAD))) == (11, 0, 0)
    here.leave()


def test_a_quick_model_asks_nobody_for_the_caller(server: Server, serve: Serve) -> None:
    gone = Caller(server)
    gone.leave()
    service = serve(lambda payload: payload)
    ask(server, b"{}", reply_to=gone.address)
    settled(server)
    wait_until(lambda: service.counts["replies_lost"] == 1)
    assert (service.counts["succeeded"], service.counts["caller_gone"]) == (1, 0)


SERVICE = """
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
