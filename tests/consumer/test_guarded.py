"""A thread of a consumer that fails unforeseen, or cannot be started, ends the run: nothing goes on half dead."""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.memory.server import Address, Server
from infertool.consumer.consumer import Consumer, Until
from infertool.consumer.router import Published
from infertool.consumer.worker import Threads
from infertool.errors import InferenceError, InfertoolError
from infertool.message import Outgoing
from infertool.models.port import LoadedModel
from infertool.publishers.local import LocalPublisher
from infertool.publishers.phoenix import PhoenixPublisher
from infertool.publishers.port import Publisher, PublisherClosedError
from infertool.settings import Settings
from infertool.settings.broker import BrokerSettings
from infertool.settings.tree import ConsumeSettings, DeadLetterSettings, PhoenixSettings, PublishSettings
from tests.consumer.harness import LONG
from tests.support.hub import HubProcess

_numbers = itertools.count(1)
Predict = Callable[[Any], Any]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(f"guarded-{next(_numbers)}") as server:
        yield server


def _error_of_run(
    server: Server,
    state_dir: Path,
    predict: Predict,
    *,
    address: Address | None = None,
    until: Until | None = None,
    publisher: Publisher[Published] | None = None,
) -> BaseException | None:
    """Consume one event, or as many as `until` says; return what the run ends with."""
    server.send(Outgoing("events", json.dumps({"event_id": "e"}).encode()))
    settings = Settings(
        broker=BrokerSettings(
            url=(address or server.new_address()).url, queue="events", reconnect_base_s=0.001, reconnect_max_s=0.01
        ),
        deadletter=DeadLetterSettings(queue="dead"),
        consume=ConsumeSettings(concurrency=2, stop_deadline_s=0.1),
    )
    consumer = Consumer(
        settings,
        Threads(LoadedModel("m", "m", predict), in_batches=False),
        open_broker=lambda on_connection: brokers.open(settings.broker, on_connection=on_connection),
        publisher=publisher or LocalPublisher[Published]("none", lambda _documents: None),
        name="c",
        state_dir=state_dir,
        observe=lambda _signal: None,
        until=until or Until(),
    )
    ended: Future[None] = Future()

    def run() -> None:
        try:
            consumer.run()
        except BaseException as error:  # noqa: BLE001  (it is what is asked for)
            ended.set_exception(error)
        else:
            ended.set_result(None)

    threading.Thread(target=run, daemon=True).start()
    try:
        return ended.exception(LONG)
    finally:
        consumer.stop()


def _fail(_payload: Any) -> Any:
    raise InferenceError("it fails", retryable=False)


STEPS = {
    "dead-letters": "infertool.consumer.dead_letter_writer.LetterForm.fill_in",
    "intake": "infertool.brokers.memory.subscription.MemorySubscription.receive",
    "watchdog": "infertool.consumer.work_queue.ActiveWorkers.callers",
    "gauge": "infertool.consumer.gauge.Gauge._ask",
}


@pytest.mark.parametrize("name", STEPS)
def test_a_thread_that_fails_unforeseen_ends_the_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fault = ZeroDivisionError(name)

    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise fault

    monkeypatch.setattr(threading, "excepthook", lambda _args: None)  # as a model may
    monkeypatch.setattr(STEPS[name], broken)
    assert _error_of_run(server, tmp_path, _fail) is fault


IN_PHOENIX = {
    "settles": "infertool.consumer.settlement.Settlement.ack",
    "reads": "infertool.phoenix.delivery.Delivery._take_reply",
    "ticks": "infertool.phoenix.delivery.Delivery._look_at_silence",
}


@pytest.mark.parametrize("name", IN_PHOENIX)
def test_a_thread_of_the_connection_to_phoenix_that_fails_unforeseen_ends_the_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where the thread has ended, one of the next publications shows that nothing is published any more."""
    fault, has_ended = ZeroDivisionError(name), threading.Event()

    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise fault

    def send_on() -> None:
        while not has_ended.wait(0.05):
            server.send(Outgoing("events", b"{}"))

    monkeypatch.setattr(threading, "excepthook", lambda _args: None)
    monkeypatch.setattr(IN_PHOENIX[name], broken)
    sending = threading.Thread(target=send_on)
    with HubProcess() as hub:
        phoenix = PhoenixSettings(url=hub.url)
        publisher = PhoenixPublisher[Published](phoenix, PublishSettings(), lambda _signal: None)
        sending.start()
        try:
            error = _error_of_run(server, tmp_path, lambda _payload: {}, publisher=publisher)
        finally:
            has_ended.set()
            sending.join()
    assert error is fault if name == "settles" else isinstance(error, PublisherClosedError)


def start_none_of(monkeypatch: pytest.MonkeyPatch, name: str, *, once: threading.Event) -> None:
    """Have the system start no thread of this name any more once `once` is set; nothing tells of an uncaught error."""
    start = threading.Thread.start

    def start_unless_full(thread: threading.Thread) -> None:
        if thread.name == name and once.is_set():
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading, "excepthook", lambda _args: None)
    monkeypatch.setattr(threading.Thread, "start", start_unless_full)


def test_the_thread_of_retries_that_cannot_start_a_worker_ends_the_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_failed, end = threading.Event(), threading.Event()

    def fail_once(_payload: Any) -> Any:
        if not has_failed.is_set():
            has_failed.set()
            server.send(Outgoing("events", b"{}"))  # it keeps the one thread that calls the model busy
            raise InferenceError("try again", retryable=True)
        end.wait(LONG)
        return {}

    start_none_of(monkeypatch, "worker", once=has_failed)
    try:
        error = _error_of_run(server, tmp_path, fail_once)
    finally:
        end.set()
    assert isinstance(error, InfertoolError)
    assert "starts no more threads" in str(error)


@pytest.mark.parametrize("name", ["intake", "worker"])
def test_a_thread_that_the_system_does_not_start_ends_the_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The reader's successor, for a call that takes long; or the worker of the events behind it."""
    has_begun, end = threading.Event(), threading.Event()

    def take_long(_payload: Any) -> Any:
        has_begun.set()
        if name == "worker":
            server.send(Outgoing("events", b"{}"))
        end.wait(LONG)
        return {}

    start_none_of(monkeypatch, name, once=has_begun)
    try:
        error = _error_of_run(server, tmp_path, take_long)
    finally:
        end.set()
    assert isinstance(error, InfertoolError)
    assert "starts no more threads" in str(error)


def test_a_model_that_removes_the_hooks_of_threads_hinders_no_new_connection(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python makes no thread while a hook is None."""
    for module in (threading, sys):
        monkeypatch.setattr(module, "excepthook", module.excepthook)
    address, calls = server.new_address(), list[Any]()

    def remove_hooks(payload: Any) -> Any:
        calls.append(payload)
        if len(calls) == 1:
            threading.excepthook = sys.excepthook = None  # type: ignore[assignment]
            address.faults.cut()
            server.send(Outgoing("events", b"{}"))
        return {}

    assert _error_of_run(server, tmp_path, remove_hooks, address=address, until=Until(max_messages=2)) is None
    assert len(calls) >= 2
