"""A connection to a cluster: a client that asks, and one that sends once something is sent.

librdkafka connects by itself, and again after a loss. A session ends when no broker answers any more, so that callers
learn of it at once; the supervisor then makes another one. Consumers live on: they keep their places in their groups.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException

from infertool.brokers.kafka import errors
from infertool.brokers.kafka.client import Clients
from infertool.brokers.kafka.diagnosis import Search
from infertool.brokers.kafka.producer import Producer
from infertool.errors import (
    ConnectionLostError,
    InfertoolError,
    ReceiptTimeoutError,
    SettingsError,
    UnreachableError,
)
from infertool.net.timing import left_s

_log = logging.getLogger(__name__)

K = TypeVar("K")

_POLL_S: Final = 0.25
_ANSWER_POLL_S: Final = 0.05
# How long a broker may take to answer after all connections were lost: one that restarts, or ends idle ones, is there.
_LEAST_CHECK_S, _MOST_CHECK_S = 1.0, 5.0
# Errors of one attempt that are kept.
_MOST_FAULTS: Final = 50


@dataclass(frozen=True, slots=True)
class Cluster:
    """See `infertool.brokers.supervisor.Host`: all hosts of the URL, of which librdkafka uses any."""

    clients: Clients

    @property
    def address(self) -> str:
        """The address for people."""
        return self.clients.address

    def connection(self, epoch: int, on_end: Callable[[Session], None]) -> Session:
        """Return a session that is not yet open."""
        return Session(self.clients, epoch, on_end)


class Session:
    """See `infertool.brokers.supervisor.Supervised`."""

    def __init__(self, clients: Clients, epoch: int, on_end: Callable[[Session], None]) -> None:
        self.clients = clients
        self.address = clients.address
        self.epoch = epoch
        self.reason = ""
        self.cluster: Any = None
        self._on_end = on_end
        self._admin: Any = None
        self._producer: Producer | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._faults: list[KafkaError] = []
        self._all_down = False
        self._polled_at = time.monotonic()
        self._heartbeat_s = clients.settings.heartbeat_s
        self._thread = threading.Thread(target=self._run, name="infertool-kafka", daemon=True)

    def open(self) -> None:
        """Connect. Raises UnreachableError or RefusedError, and has ended then."""
        try:
            self._admin = self.clients.admin(error_cb=self._on_error)
            self.cluster = self._first_answer()
            self._thread.start()
        except SettingsError as fault:
            self._admin = None
            self.end(fault.what)
            if self.epoch == 1:
                raise
            # A file may be in the middle of a rotation.
            raise UnreachableError(fault.what, address=self.address, advice=fault.advice) from None
        except Exception as fault:
            self._admin = None
            self.end(str(fault))
            raise

    def _first_answer(self) -> Any:
        timeout_s = self.clients.settings.connect_timeout_s
        deadline = time.monotonic() + timeout_s
        asked = self._admin.describe_cluster(request_timeout=timeout_s)
        search = Search(self.clients)
        while not asked.done() and left_s(deadline) and not self.reason:
            self._admin.poll(_ANSWER_POLL_S)
            if fault := search.hopeless(self._faults):
                raise fault
        if self.reason:
            raise ConnectionLostError(self.reason, address=self.address)
        if not asked.done() or asked.exception():
            raise search.timed_out(self._faults)
        self._faults.clear()
        self._all_down = False
        return asked.result()

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == errors.ALL_DOWN:
            self._all_down = True
        elif len(self._faults) < _MOST_FAULTS:
            self._faults.append(error)

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as fault:  # noqa: BLE001  # no fault may leave a connection that looks alive and is not
            _log.error("watching the connection to %s failed", self.address, exc_info=fault)
            self.end(repr(fault))
        finally:
            # Destroyed here. The garbage collector may run on a thread of librdkafka's, which cannot destroy its own
            # client: it ends the process.
            self._admin = None
        self._ended.wait()

    def _watch(self) -> None:
        answered_at = time.monotonic()
        while not self.reason:
            self._admin.poll(_POLL_S)
            self._polled_at = now = time.monotonic()
            if self._all_down or (self._heartbeat_s and now - answered_at > self._heartbeat_s):
                self._check()
                answered_at = time.monotonic()

    def _check(self) -> None:
        """Ask whether the cluster is there, and end if it is not."""
        self._faults.clear()
        self._all_down = False
        timeout_s = min(max(_LEAST_CHECK_S, self._heartbeat_s / 2), _MOST_CHECK_S)
        asked = self._admin.describe_cluster(request_timeout=timeout_s)
        deadline = time.monotonic() + 2 * timeout_s
        while not asked.done() and not self.reason and left_s(deadline):
            self._admin.poll(_ANSWER_POLL_S)
            self._polled_at = time.monotonic()
        if asked.done() and not asked.exception():
            self._all_down = False
            return
        said = self.clients.masked(errors.said(self._faults[-1])) if self._faults else "it does not answer"
        self.end(said)

    def ask(self, question: Callable[[Any], Any], timeout_s: float, *, of: str = "") -> Any:
        """Return what the cluster answers to `question`, which gets the admin client and returns a future.

        `of` is the topic or group in question. Raises RefusedError, UnroutableError, ConnectionLostError.
        """
        return self._answer(question(self._asking()), timeout_s, of)

    def begin(self, question: Callable[[Any], Future[Any]]) -> Future[Any]:
        """Put a question, without waiting for the answer. Raises ConnectionLostError."""
        return question(self._asking())

    def ask_each(self, question: Callable[[Any], Mapping[K, Any]], timeout_s: float, *, of: str = "") -> dict[K, Any]:
        """Return what the cluster answers to a question with several answers. Raises as `ask`."""
        deadline = time.monotonic() + timeout_s
        asked = question(self._asking())
        return {key: self._answer(each, left_s(deadline), of) for key, each in asked.items()}

    def groups(self, name: str, timeout_s: float) -> list[Any]:
        """Return what the brokers tell of a group of the classic protocol: none, or one. Raises KafkaException."""
        return list(self._asking().list_groups(name, timeout=timeout_s))

    def _asking(self) -> Any:
        admin = self._admin
        if self.reason or admin is None:
            raise self.lost()
        return admin

    def _answer(self, asked: Future[Any], timeout_s: float, of: str) -> Any:
        try:
            return asked.result(timeout_s)
        except TimeoutError:
            what = f"{self.address} did not answer in time ({timeout_s:.3g} s)"
            raise ReceiptTimeoutError(what, address=self.address) from None
        except KafkaException as fault:
            raise self.translated(fault.args[0], of) from None

    def translated(self, error: KafkaError, of: str = "") -> InfertoolError:
        """Return the error for what librdkafka reports of a topic or group."""
        return errors.translate(error, self.address, of=of, masked=self.clients.masked(errors.reason_of(error)))

    @property
    def producer(self) -> Producer:
        """The client that sends. Raises ConnectionLostError."""
        with self._lock:
            if self.reason:
                raise self.lost()
            if self._producer is None or self._producer.lost:
                self._producer = self._made()
            return self._producer

    def _made(self) -> Producer:
        try:
            return Producer(self)
        except (SettingsError, UnreachableError) as fault:
            # A file of the login or of TLS that cannot be used now: it may be in the middle of a rotation.
            raise ConnectionLostError(fault.what, address=self.address, advice=fault.advice) from None

    def reader_silent_s(self) -> float:
        """Return for how long the thread has not run."""
        return time.monotonic() - self._polled_at

    def lost(self) -> ConnectionLostError:
        """Return the error for what its end left open."""
        return ConnectionLostError(f"the connection to {self.address} was lost: {self.reason}", address=self.address)

    def end(self, reason: str) -> None:
        """End it, from any thread. The first reason counts."""
        with self._lock:
            if self.reason:
                return
            self.reason = reason
            producer = self._producer
        if producer:
            producer.abandon(self.lost())
        self._ended.set()
        self._on_end(self)

    def close(self, timeout_s: float) -> None:
        """Send what is pending within `timeout_s`, and end."""
        with self._lock:
            producer = self._producer
        if producer:
            producer.flush(timeout_s)
        self.end("closed")
        self.join()

    def join(self) -> None:
        """Wait until its thread has ended."""
        self._ended.wait()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        if self._producer:
            self._producer.join()
