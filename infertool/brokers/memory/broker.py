"""The broker port on the in-process broker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from infertool.brokers.memory.adapter import CONVENTIONS
from infertool.brokers.memory.connection import Connection
from infertool.brokers.memory.faults import Operation
from infertool.brokers.memory.queues import Stored
from infertool.brokers.memory.server import Address
from infertool.brokers.memory.subscription import MemoryBulkSender, MemorySubscription, send, to_message
from infertool.brokers.port import Browse, Capabilities, Conventions, Depth, OnSent, Selector
from infertool.errors import ConnectionLostError, RefusedError, ServerError
from infertool.message import Message, Outgoing
from infertool.net.connection_state import ConnectionEvent, ConnectionState, OnConnection
from infertool.net.timing import FullJitter
from infertool.secret import Secret
from infertool.settings.tree import BrokerSettings

_log = logging.getLogger(__name__)

# What one browse holds in memory.
_MOST_BYTES: Final = 256 * 1024 * 1024


class MemoryBroker:
    """See `infertool.brokers.port.Broker`. A thread of its own makes a new connection after each loss."""

    def __init__(
        self,
        address: Address,
        settings: BrokerSettings,
        *,
        user: str,
        password: Secret,
        on_connection: OnConnection | None,
    ) -> None:
        self._address = address
        self._user, self._password = user, password
        self._timeout_s = settings.receipt_timeout_s
        self._backoff = FullJitter(settings.reconnect_base_s, settings.reconnect_max_s)
        self._on_connection = on_connection
        self._epoch = 0
        self._connection: Connection | None = None
        self._subscriptions: list[MemorySubscription] = []
        # Held while subscribing, so that a subscription is made once a connection, by the caller or the supervisor.
        self._subscribing = threading.Lock()
        self._ended = threading.Event()
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="infertool-memory-supervisor", daemon=True)

    @property
    def address(self) -> str:
        """See `infertool.brokers.port.Broker`."""
        return self._address.url

    @property
    def capabilities(self) -> Capabilities:
        """See `infertool.brokers.port.Broker`."""
        return self._address.server.capabilities

    @property
    def conventions(self) -> Conventions:
        """See `infertool.brokers.port.Broker`."""
        return CONVENTIONS

    def connect(self) -> None:
        """See `infertool.brokers.port.Broker`."""
        self._open()
        self._supervisor.start()

    def subscribe(
        self, queue: str, *, window: int, selector: Selector | None = None, exclusive: bool = False
    ) -> MemorySubscription:
        """See `infertool.brokers.port.Broker`. Without a connection now, it begins with the next one."""
        subscription = MemorySubscription(
            queue,
            window=window,
            selector=selector,
            exclusive=exclusive,
            current=self._current,
            timeout_s=self._timeout_s,
        )
        with self._subscribing:
            self._subscriptions.append(subscription)
            if connection := self._current():
                self._attach_first(subscription, connection)
        return subscription

    def _attach_first(self, subscription: MemorySubscription, connection: Connection) -> None:
        try:
            subscription.attach(connection)
        except RefusedError:
            self._subscriptions.remove(subscription)
            raise
        except ConnectionLostError:
            # The supervisor subscribes on the next connection.
            return

    def send(self, outgoing: Outgoing, on_sent: OnSent) -> None:
        """See `infertool.brokers.port.Broker`. Waits while 500 sends are unconfirmed."""
        connection = self._connected()
        connection.wait_for_room()
        connection.ask(Operation.SEND, partial(send, connection, outgoing), partial(_tell, on_sent), self._timeout_s)

    def bulk_sender(self, template: Outgoing, variable_headers: Sequence[str]) -> MemoryBulkSender:
        """See `infertool.brokers.port.Broker`."""
        return MemoryBulkSender(template, variable_headers, self._connected, self._timeout_s)

    def browse(self, queue: str, *, limit: int, timeout_s: float, selector: Selector | None = None) -> Browse:
        """See `infertool.brokers.port.Broker`."""
        connection = self._connected()
        shown: list[tuple[list[Stored], bool]] = []
        connection.call(Operation.BROWSE, lambda: shown.append(connection.server.browse(queue, selector)), timeout_s)
        [(stored, complete)] = shown
        size = 0
        messages: list[Message] = []
        for each in stored[:limit]:
            size += len(each.outgoing.body)
            if size > _MOST_BYTES and messages:
                break
            messages.append(to_message(each, queue, 0, "", self.capabilities))
        depth = connection.server.depth(queue)
        return Browse(messages, complete and len(messages) == len(stored), depth.size if depth else None)

    def measure(self, queue: str, timeout_s: float) -> Depth | None:
        """See `infertool.brokers.port.Broker`."""
        connection = self._current()
        if connection is None:
            return None
        depths: list[Depth | None] = []
        try:
            connection.call(Operation.MEASURE, lambda: depths.append(connection.server.depth(queue)), timeout_s)
        except ServerError:
            return None
        return depths[0]

    def close(self, timeout_s: float) -> None:
        """See `infertool.brokers.port.Broker`. Safe to call again."""
        with self._subscribing:
            if self._closing.is_set():
                return
            self._closing.set()
            connection = self._connection
        for subscription in self._subscriptions:
            subscription.close()
        if connection:
            connection.close(timeout_s)
        self._ended.set()
        if self._supervisor.ident is not None:
            self._supervisor.join()
        self._emit(ConnectionState.CLOSED, "closed")

    def _current(self) -> Connection | None:
        connection = self._connection
        return connection if connection and not connection.reason else None

    def _connected(self) -> Connection:
        connection = self._current()
        if connection is None:
            raise ConnectionLostError(f"there is no connection to {self.address}", address=self.address)
        return connection

    def _open(self) -> None:
        self._emit(ConnectionState.CONNECTING)
        connection = Connection(self._address, self._epoch + 1, self._on_end)
        connection.open(self._user, self._password.reveal())
        with self._subscribing:
            self._epoch = connection.epoch
            self._ended.clear()
            self._connection = connection
            closed = self._closing.is_set()
            try:
                for subscription in self._subscriptions:
                    subscription.attach(connection)
            except ServerError as fault:
                connection.end(str(fault))
                connection.join()
                raise
        if closed:
            connection.close(0)
        if connection.reason:
            self._ended.set()
        self._emit(ConnectionState.CONNECTED)

    def _on_end(self, connection: Connection) -> None:
        if connection is self._connection:
            for subscription in list(self._subscriptions):
                subscription.lost()
            self._ended.set()

    def _supervise(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            since = time.monotonic()
            self._ended.wait()
            # A connection that lives shorter than the longest wait does not start the backoff anew.
            if time.monotonic() - since > self._backoff.cap_s:
                attempt = 0
            attempt = self._reconnect(attempt + 1)

    def _reconnect(self, attempt: int) -> int:
        """Try until it works or is closed. Return the number of attempts so far."""
        reason = ""
        if self._connection:
            self._connection.join()
            reason = self._connection.reason
        while not self._closing.is_set():
            wait_s = self._backoff.wait(attempt)
            self._emit(ConnectionState.LOST, reason, wait_s)
            if self._closing.wait(wait_s):
                break
            try:
                self._open()
            except ServerError as fault:
                reason = str(fault)
                attempt += 1
            else:
                break
        return attempt

    def _emit(self, state: ConnectionState, reason: str = "", retry_in_s: float | None = None) -> None:
        if self._on_connection is None:
            return
        try:
            self._on_connection(ConnectionEvent(state, self.address, self._epoch, reason, retry_in_s))
        except Exception:  # noqa: BLE001  # a failing listener must not end the supervision
            _log.exception("a listener of the broker connection raised")


def _tell(on_sent: OnSent, error: Exception | None) -> None:
    try:
        on_sent(error)
    except Exception:  # noqa: BLE001  # others' code must neither end the connection nor keep answers from others
        _log.exception("a callback of a confirmed send raised")
