"""Replaces a connection to a broker that is lost, from a thread of its own, and subscribes again on the new one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from infertool import thread_hooks
from infertool.brokers import callbacks
from infertool.errors import ConnectionLostError, InfertoolError, RefusedError, ServerError, UnreachableError
from infertool.net.connection_state import ConnectionEvent, ConnectionState, OnConnection
from infertool.net.timing import FullJitter

_log = logging.getLogger(__name__)

# Longest wait of close() for the supervisor's thread, which close() wakes from every wait. Seconds.
_JOIN_S: Final = 5.0


class Supervised(Protocol):
    """A connection: it opens once, ends once, and is never used again.

    It calls `on_end`, which it was made with, once nothing more will be delivered or answered.
    """

    epoch: int
    """Its number among the supervisor's connections, from 1."""

    reason: str
    """Why it ended; empty while it lives."""

    def open(self) -> None:
        """Connect and log in. Raises `UnreachableError`, `RefusedError`, and has ended then."""

    def end(self, reason: str) -> None:
        """End it, from any thread. The first reason counts."""

    def close(self, timeout_s: float) -> None:
        """Write what is pending, log out within `timeout_s`, and end."""

    def join(self) -> None:
        """Wait until its threads have ended."""


C = TypeVar("C", bound=Supervised)
C_co = TypeVar("C_co", bound=Supervised, covariant=True)
C_contra = TypeVar("C_contra", bound=Supervised, contravariant=True)


class Attached(Protocol[C_contra]):
    """What outlives connections: a subscription."""

    def attach(self, connection: C_contra) -> None:
        """Begin on a connection, once. Raises `RefusedError`, `ConnectionLostError`."""

    def lost(self) -> None:
        """Forget what the last connection delivered."""

    def close(self) -> None:
        """End for good."""


class Host(Protocol[C_co]):
    """A place to connect to."""

    @property
    def address(self) -> str:
        """The address for people: no user, no password."""

    def connection(self, epoch: int, on_end: Callable[[C_co], None]) -> C_co:
        """Return a connection that is not yet open. Raises `UnreachableError`."""


class Supervisor(Generic[C]):
    """Connects to the first of `hosts` that answers, and again after each loss, until closed. `name` is its thread's.

    Subscriptions that were added are made once a connection, by the caller or by the supervisor.
    """

    def __init__(
        self, hosts: Sequence[Host[C]], backoff: FullJitter, *, name: str, on_connection: OnConnection | None
    ) -> None:
        self._hosts = hosts
        self._backoff = backoff
        self._name = name
        self._on_connection = on_connection
        self._epoch = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._connection: C | None = None
        self._opening: C | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        # Held while subscribing.
        self._subscribing = threading.Lock()
        self._subscriptions: list[Attached[C]] = []
        # Where it is or was last connected.
        self.address = hosts[0].address

    @property
    def newest(self) -> C | None:
        """The newest connection that was made; it may have ended."""
        return self._connection

    def current(self) -> C | None:
        """Return the connection if there is one now."""
        connection = self._connection
        return connection if connection and not connection.reason else None

    def connected(self) -> C:
        """Return the connection. Raises ConnectionLostError if there is none now."""
        connection = self.current()
        if connection is None:
            raise ConnectionLostError(f"there is no connection to {self.address}", address=self.address)
        return connection

    def connect(self) -> None:
        """Try each host once, and supervise from then on. Raises UnreachableError or RefusedError."""
        self._round()
        self._thread = threading.Thread(target=self._supervise, name=self._name, daemon=True)
        self._thread.start()

    def add(self, subscription: Attached[C]) -> None:
        """Subscribe now and on every later connection. Raises what `attach` raises, and does not keep it then.

        Without a connection now, it begins with the next one.
        """
        with self._subscribing:
            self._subscriptions.append(subscription)
            connection = self.current()
            if connection is None:
                return
            try:
                subscription.attach(connection)
            except ConnectionLostError as fault:
                # The supervisor subscribes on the next connection, for which this one may not live on.
                connection.end(str(fault))
            except BaseException:
                self._subscriptions.remove(subscription)
                raise

    def discard(self, subscription: Attached[C]) -> None:
        """Do not make `subscription` again."""
        with self._subscribing:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)

    def close(self, timeout_s: float) -> None:
        """Disconnect within `timeout_s` and end all threads. Safe to call again."""
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
            connection, opening = self._connection, self._opening
        for subscription in list(self._subscriptions):
            subscription.close()
        if opening:
            opening.end("closed")
        if connection:
            connection.close(timeout_s)
        self._ended.set()
        if self._thread:
            self._thread.join(_JOIN_S)
        self._emit(ConnectionState.CLOSED, "closed")

    def _supervise(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            since = time.monotonic()
            self._ended.wait()
            if self._closing.is_set():
                return
            # The backoff starts anew only after a connection that lived longer than the longest wait.
            if time.monotonic() - since > self._backoff.cap_s:
                attempt = 0
            attempt = self._reconnect(attempt + 1)

    def _reconnect(self, attempt: int) -> int:
        """Try until there is a connection, or until closed. Return the number of attempts so far."""
        reason, refused = self._connection.reason if self._connection else "", False
        if self._connection:
            self._connection.join()
        while not self._closing.is_set():
            wait = self._backoff.wait(attempt)
            if refused:
                # Frequent attempts with a wrong password can lock the account.
                wait = max(wait, self._backoff.cap_s / 2)
            self._emit(ConnectionState.LOST, reason, wait)
            if self._closing.wait(wait):
                break
            thread_hooks.restore()
            try:
                self._round()
            except Exception as fault:  # noqa: BLE001  # without this thread nothing would connect again
                reason, refused = self._told(fault), isinstance(fault, RefusedError)
                attempt += 1
            else:
                break
        return attempt

    def _told(self, fault: Exception) -> str:
        """Return why an attempt failed. Log the trace of an error that nobody foresaw."""
        if isinstance(fault, InfertoolError):
            return str(fault)
        _log.error("a new connection to %s failed unexpectedly", self.address, exc_info=fault)
        return f"{type(fault).__name__}: {fault}"

    def _round(self) -> None:
        """Try each host in order. Raises the only host's error, or one error that names all hosts."""
        faults: list[ServerError] = []
        for host in self._hosts:
            try:
                self._open(host)
            except ServerError as fault:
                faults.append(fault)
            else:
                return
        raise _joined(faults)

    def _open(self, host: Host[C]) -> None:
        connection = host.connection(self._epoch + 1, self._on_end)
        with self._lock:
            if self._closing.is_set():
                raise ConnectionLostError("closed", address=host.address)
            self._opening = connection
        self._emit(ConnectionState.CONNECTING, address=host.address)
        try:
            connection.open()
            self._begin(connection, host.address)
        except Exception as fault:
            connection.end(str(fault))
            raise
        finally:
            self._opening = None

    def _begin(self, connection: C, address: str) -> None:
        with self._lock:
            self._epoch = connection.epoch
            self._ended.clear()
            # From here on close() disconnects it; a connection that is still opening is only cut.
            self._connection, self._opening = connection, None
            self.address = address
        try:
            with self._subscribing:
                for subscription in self._subscriptions:
                    subscription.attach(connection)
        except Exception as fault:
            connection.end(str(fault))
            connection.join()
            raise
        if connection.reason:
            self._ended.set()
        self._emit(ConnectionState.CONNECTED)

    def _on_end(self, connection: C) -> None:
        if connection is self._connection:
            for subscription in list(self._subscriptions):
                callbacks.tell(lambda each: each.lost(), subscription, callbacks.SUBSCRIPTION)
            self._ended.set()

    def _emit(
        self, state: ConnectionState, reason: str = "", retry_in_s: float | None = None, address: str = ""
    ) -> None:
        if self._on_connection is None:
            return
        event = ConnectionEvent(state, address or self.address, self._epoch, reason, retry_in_s)
        callbacks.tell(self._on_connection, event, callbacks.LISTENER)


def _joined(faults: list[ServerError]) -> ServerError:
    if len(faults) == 1:
        return faults[0]
    what = "no broker can be used: " + "; ".join(fault.what for fault in faults)
    addresses = ",".join(fault.address for fault in faults)
    refusals = [fault for fault in faults if isinstance(fault, RefusedError)]
    if refusals:
        return RefusedError(what, address=addresses, reason=refusals[0].reason, advice=refusals[0].advice)
    return UnreachableError(what, address=addresses, advice=faults[0].advice)
