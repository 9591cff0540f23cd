"""Replaces a STOMP connection that is lost, from a thread of its own."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from infertool.brokers.stomp.connection import Connection
from infertool.brokers.stomp.target import Target
from infertool.errors import ConnectionLostError, RefusedError, ServerError, UnreachableError
from infertool.net.connection_state import ConnectionEvent, ConnectionState, OnConnection
from infertool.net.timing import FullJitter

_log = logging.getLogger(__name__)

# Longest wait of close() for the supervisor's thread, which close() wakes from every wait. Seconds.
_JOIN_S: Final = 5.0


class Supervisor:
    """Connects to the first of `targets` that answers, and again after each loss, until closed.

    `attach` subscribes on a new connection and may raise ServerError; `lost` drops what the lost one delivered.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        backoff: FullJitter,
        *,
        name: str,
        attach: Callable[[Connection], None],
        lost: Callable[[], None],
        on_connection: OnConnection | None,
    ) -> None:
        self._targets = targets
        self._backoff = backoff
        self._name = name
        self._attach = attach
        self._lost = lost
        self._on_connection = on_connection
        self._epoch = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._connection: Connection | None = None
        self._opening: Connection | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.address = targets[0].address

    def current(self) -> Connection | None:
        """Return the connection if there is one now."""
        connection = self._connection
        return connection if connection and not connection.reason else None

    def connect(self) -> None:
        """Try each host once, and supervise from then on. Raises UnreachableError or RefusedError."""
        self._round()
        self._thread = threading.Thread(target=self._supervise, name="infertool-stomp-supervisor", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Disconnect within `timeout_s` and end all threads."""
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
            connection, opening = self._connection, self._opening
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
            try:
                self._round()
            except ServerError as fault:
                reason, refused = str(fault), isinstance(fault, RefusedError)
                attempt += 1
            else:
                break
        return attempt

    def _round(self) -> None:
        """Try each host in order. Raises the only host's error, or one error that names all hosts."""
        faults: list[ServerError] = []
        for target in self._targets:
            try:
                self._open(target)
            except ServerError as fault:
                faults.append(fault)
            else:
                return
        raise _joined(faults)

    def _open(self, target: Target) -> None:
        connection = Connection(target, self._epoch + 1, _client_id(self._name), self._on_end)
        with self._lock:
            if self._closing.is_set():
                raise ConnectionLostError("closed", address=target.address)
            self._opening = connection
        self._emit(ConnectionState.CONNECTING, address=target.address)
        try:
            connection.open()
            self._begin(connection)
        finally:
            self._opening = None

    def _begin(self, connection: Connection) -> None:
        with self._lock:
            self._epoch = connection.epoch
            self._ended.clear()
            # From here on close() disconnects it; a connection that is still opening is only cut.
            self._connection, self._opening = connection, None
            self.address = connection.target.address
        try:
            self._attach(connection)
        except ServerError as fault:
            connection.end(str(fault))
            connection.join()
            raise
        if connection.reason:
            self._ended.set()
        self._emit(ConnectionState.CONNECTED)

    def _on_end(self, connection: Connection) -> None:
        if connection is self._connection:
            self._lost()
            self._ended.set()

    def _emit(
        self, state: ConnectionState, reason: str = "", retry_in_s: float | None = None, address: str = ""
    ) -> None:
        if self._on_connection is None:
            return
        event = ConnectionEvent(state, address or self.address, self._epoch, reason, retry_in_s)
        try:
            self._on_connection(event)
        except Exception:  # noqa: BLE001  # a failing listener must not end the supervision
            _log.exception("a listener of the broker connection raised")


def _client_id(name: str) -> str:
    """Return an id for the broker's console. It is new each time: ActiveMQ may still hold our last connection."""
    return f"{name}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def _joined(faults: list[ServerError]) -> ServerError:
    if len(faults) == 1:
        return faults[0]
    what = "no broker can be used: " + "; ".join(fault.what for fault in faults)
    addresses = ",".join(fault.address for fault in faults)
    refusals = [fault for fault in faults if isinstance(fault, RefusedError)]
    if refusals:
        return RefusedError(what, address=addresses, reason=refusals[0].reason, advice=refusals[0].advice)
    return UnreachableError(what, address=addresses, advice=faults[0].advice)
