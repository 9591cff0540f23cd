"""The broker port on the in-process broker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from infertool.brokers import callbacks
from infertool.brokers.memory.adapter import CONVENTIONS
from infertool.brokers.memory.connection import Host
from infertool.brokers.memory.faults import Operation
from infertool.brokers.memory.partitioned_subscription import PartitionedSubscription
from infertool.brokers.memory.queues import Stored
from infertool.brokers.memory.replies import MemoryReplies
from infertool.brokers.memory.server import Address
from infertool.brokers.memory.subscription import MemoryBulkSender, MemorySubscription, send, to_message
from infertool.brokers.partitioned import Lag
from infertool.brokers.port import (
    MOST_BROWSED_BYTES,
    Browse,
    Browsing,
    Capabilities,
    Conventions,
    Depth,
    OnEnds,
    OnMessages,
    OnSent,
    Selector,
)
from infertool.brokers.sending import send_each
from infertool.brokers.supervisor import Supervisor
from infertool.errors import ReceiptTimeoutError, ServerError
from infertool.message import Message, Outgoing
from infertool.net.connection_state import OnConnection
from infertool.net.timing import FullJitter
from infertool.secret import Secret
from infertool.settings.broker import BrokerSettings


class MemoryBroker:
    """See `infertool.brokers.port.Broker`."""

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
        self._timeout_s = settings.receipt_timeout_s
        self._supervisor = Supervisor(
            [Host(address, (user, password))],
            FullJitter(settings.reconnect_base_s, settings.reconnect_max_s),
            name="infertool-memory-supervisor",
            on_connection=on_connection,
        )

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
        self._supervisor.connect()

    def subscribe(
        self, queue: str, *, window: int, selector: Selector | None = None, exclusive: bool = False
    ) -> MemorySubscription:
        """See `infertool.brokers.port.Broker`. Without a connection now, it begins with the next one."""
        kind = PartitionedSubscription if self._address.server.is_partitioned(queue) else MemorySubscription
        subscription = kind(
            queue,
            window=window,
            selector=selector,
            exclusive=exclusive,
            current=self._supervisor.current,
            timeout_s=self._timeout_s,
        )
        self._supervisor.add(subscription)
        return subscription

    def open_replies(self, on_replies: OnMessages) -> MemoryReplies:
        """See `infertool.brokers.port.Broker`."""
        replies = MemoryReplies(on_replies, self._timeout_s, forget=self._supervisor.discard)
        self._supervisor.add(replies)
        return replies

    def reply_exists(self, address: str, timeout_s: float) -> bool | None:
        """See `infertool.brokers.port.Broker`."""
        connection = self._supervisor.current()
        if connection is None or connection.is_current():
            return None
        found: list[bool] = []
        try:
            connection.call(Operation.MEASURE, lambda: found.append(connection.server.exists(address)), timeout_s)
        except ServerError:
            return None
        return found[0]

    def send(
        self,
        outgoing: Outgoing,
        on_sent: OnSent,
        *,
        declare: bool = True,  # noqa: ARG002  # the broker makes queues
        room_s: float | None = None,
    ) -> None:
        """See `infertool.brokers.port.Broker`. Waits while 500 sends are unconfirmed."""
        connection = self._supervisor.connected()
        if not connection.wait_for_room(room_s):
            raise ReceiptTimeoutError(f"{self.address} confirms nothing; a send waited in vain", address=self.address)
        connection.ask(
            Operation.SEND,
            partial(send, connection, outgoing),
            partial(callbacks.tell, on_sent, what=callbacks.SEND),
            self._timeout_s,
        )

    def send_all(self, messages: Sequence[tuple[Outgoing, Any]], on_ends: OnEnds) -> None:
        """See `infertool.brokers.port.Broker`."""
        send_each(partial(self.send, declare=False), messages, on_ends)

    def bulk_sender(self, template: Outgoing, variable_headers: Sequence[str]) -> MemoryBulkSender:
        """See `infertool.brokers.port.Broker`."""
        return MemoryBulkSender(template, variable_headers, self._supervisor.connected, self._timeout_s)

    def browse(self, queue: str, *, limit: int, timeout_s: float, selector: Selector | None = None) -> Browse:
        """See `infertool.brokers.port.Broker`."""
        connection = self._supervisor.connected()
        shown: list[tuple[list[Stored], bool]] = []
        connection.call(Operation.BROWSE, lambda: shown.append(connection.server.browse(queue, selector)), timeout_s)
        [(stored, complete)] = shown
        size = 0
        messages: list[Message] = []
        for each in stored[:limit]:
            size += len(each.outgoing.body)
            if size > MOST_BROWSED_BYTES and messages:
                break
            messages.append(to_message(each, queue, 0, "", self.capabilities))
        depth = connection.server.depth(queue)
        return Browse(messages, complete and len(messages) == len(stored), depth.size if depth else None)

    def measure(self, queue: str, timeout_s: float) -> Depth | None:
        """See `infertool.brokers.port.Broker`."""
        connection = self._supervisor.current()
        if connection is None:
            return None
        depths: list[Depth | None] = []
        try:
            connection.call(Operation.MEASURE, lambda: depths.append(connection.server.depth(queue)), timeout_s)
        except ServerError:
            return None
        return depths[0]

    def lag(self, queue: str, timeout_s: float) -> Lag | None:
        """See `infertool.brokers.partitioned.Lagging`: of queues with partitions."""
        connection = self._supervisor.current()
        lags: list[Lag | None] = []
        try:
            if connection:
                connection.call(Operation.MEASURE, lambda: lags.append(connection.server.lag(queue)), timeout_s)
        except ServerError:
            return None
        return lags[0] if lags else None

    def reader_silent_s(self) -> float | None:
        """See `infertool.brokers.port.Monitored`."""
        return 0.0 if self._supervisor.current() else None

    def oldest_sent_ms(self, queue: str, timeout_s: float) -> int | None:
        """See `infertool.brokers.port.Monitored`."""
        if self._supervisor.current() is None or self.capabilities.browse is Browsing.NONE:
            return None
        try:
            messages = self.browse(queue, limit=1, timeout_s=timeout_s).messages
        except ServerError:
            return None
        return messages[0].properties.timestamp_ms if messages else None

    def close(self, timeout_s: float) -> None:
        """See `infertool.brokers.port.Broker`. Safe to call again."""
        self._supervisor.close(timeout_s)
