"""The broker port on STOMP."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

from infertool.brokers.examining import ConnectionFacts, QueueAccess
from infertool.brokers.port import Browse, Browsing, Capabilities, Depth, Match, OnEnds, OnMessages, OnSent, Selector
from infertool.brokers.registry import BrokerUrl
from infertool.brokers.stomp import dialects
from infertool.brokers.stomp.browse import browse
from infertool.brokers.stomp.bulk_sender import StompBulkSender
from infertool.brokers.stomp.connection import SPOKEN, Connection, Host
from infertool.brokers.stomp.conventions import REMOTE_TEMPORARY, StompConventions, jms_selector
from infertool.brokers.stomp.messages import check_frame
from infertool.brokers.stomp.receipts import answer_each, unroutable
from infertool.brokers.stomp.replies import StompReplies, reply_exists
from infertool.brokers.stomp.statistics import StatisticsProbe
from infertool.brokers.stomp.subscription import StompSubscription
from infertool.brokers.supervisor import Supervisor
from infertool.brokers.target import targets
from infertool.errors import ConnectionLostError, InfertoolError, RefusedError, ServerError
from infertool.message import Outgoing
from infertool.net.connection_state import OnConnection
from infertool.net.timing import FullJitter
from infertool.settings.broker import BrokerSettings

# A message may have 100 MiB, and a line may be slow: each MB may take a second more than a receipt may.
_SLOWEST_BYTES_S: Final = 1_000_000
# Longest wait for a queue's depth after a browse: the answer comes at once, or (no plugin) never.
_MEASURE_S: Final = 1.0


class StompBroker:
    """See `infertool.brokers.port.Broker`."""

    def __init__(
        self, settings: BrokerSettings, url: BrokerUrl, *, name: str, on_connection: OnConnection | None
    ) -> None:
        hosts = [Host(target, name) for target in targets(settings, url, SPOKEN)]
        backoff = FullJitter(settings.reconnect_base_s, settings.reconnect_max_s)
        self._name = name
        self._receipt_timeout_s = settings.receipt_timeout_s
        self._ids = itertools.count(1)
        self._supervisor = Supervisor(hosts, backoff, name="infertool-stomp-supervisor", on_connection=on_connection)
        self._probe = StatisticsProbe(self._supervisor.current, name)

    @property
    def address(self) -> str:
        """Where it is or was last connected: no user, no password."""
        return self._supervisor.address

    @property
    def capabilities(self) -> Capabilities:
        """See `infertool.brokers.port.Broker`."""
        newest = self._supervisor.newest
        # Before the first connection: what a STOMP broker mostly is.
        return (newest.dialect if newest else dialects.ACTIVEMQ).capabilities

    @property
    def conventions(self) -> StompConventions:
        """See `infertool.brokers.port.Broker`."""
        newest = self._supervisor.newest
        return (newest.dialect if newest else dialects.ACTIVEMQ).conventions

    def connect(self) -> None:
        """See `infertool.brokers.port.Broker`."""
        self._supervisor.connect()

    def subscribe(
        self, queue: str, *, window: int, selector: Selector | None = None, exclusive: bool = False
    ) -> StompSubscription:
        """See `infertool.brokers.port.Broker`. Without a connection now, it begins with the next one."""
        expression = jms_selector(selector)
        subscription = StompSubscription(
            queue,
            window=window,
            name=f"s{next(self._ids)}",
            current=self._supervisor.current,
            headers={"selector": expression} if expression else {},
            by_id=isinstance(selector, Match) and bool(selector.ids),
            exclusive=exclusive,
        )
        self._supervisor.add(subscription)
        return subscription

    def open_replies(self, on_replies: OnMessages) -> StompReplies:
        """See `infertool.brokers.port.Broker`."""
        replies = StompReplies(on_replies, name=f"p{next(self._ids)}", forget=self._supervisor.discard)
        self._supervisor.add(replies)
        return replies

    def reply_exists(self, address: str, timeout_s: float) -> bool | None:
        """See `infertool.brokers.port.Broker`."""
        connection = self._supervisor.current()
        return reply_exists(connection, address, timeout_s) if connection else None

    def send(
        self,
        outgoing: Outgoing,
        on_sent: OnSent,
        *,
        declare: bool = True,  # noqa: ARG002  # the broker makes queues
        room_s: float | None = None,
    ) -> None:
        """See `infertool.brokers.port.Broker`. Waits while 500 sends, or 8 MiB, are unconfirmed.

        Raises RefusedError at once for a message past the limits of the wire format, UnroutableError for a reply
        address that is another kind of broker's.
        """
        connection = self._supervisor.connected()
        receipt, frame = self._frame(connection, outgoing)
        connection.wait_for_room(room_s)
        self._expect(connection, outgoing, receipt, answer_each, on_sent)
        connection.write(frame)

    def send_all(self, messages: Sequence[tuple[Outgoing, Any]], on_ends: OnEnds) -> None:
        """See `infertool.brokers.port.Broker`."""
        try:
            connection = self._supervisor.connected()
        except ConnectionLostError as error:
            on_ends([(token, error) for _, token in messages])
            return
        frames: list[bytes] = []
        for outgoing, token in messages:
            try:
                receipt, frame = self._frame(connection, outgoing)
                if not connection.receipts.has_room and not connection.answers_here():
                    # The answers to what is not written yet make it.
                    connection.write(b"".join(frames))
                    frames = []
                    connection.wait_for_room()
                self._expect(connection, outgoing, receipt, on_ends, token)
                frames.append(frame)
            except InfertoolError as error:
                on_ends([(token, error)])
        if frames:
            connection.write(b"".join(frames))

    def _frame(self, connection: Connection, outgoing: Outgoing) -> tuple[str, bytes]:
        """Return the receipt id of a message, and its frame. Raises RefusedError if this connection cannot send it."""
        dialect, destination = connection.dialect, outgoing.destination
        if not dialect.takes(destination):
            raise unroutable(destination, self.address, f"{dialect.name} has no such addresses")
        receipt = connection.receipts.new_id()
        frame = dialect.send(outgoing, {"receipt": receipt})
        check_frame(frame, outgoing, self.address)
        return receipt, frame

    def _expect(self, connection: Connection, outgoing: Outgoing, receipt: str, on_ends: OnEnds, token: Any) -> None:
        """Await the broker's answer to a message, which is about to be written."""
        destination, size = outgoing.destination, len(outgoing.body)
        connection.receipts.expect(
            token, self._receipt_timeout_s + size / _SLOWEST_BYTES_S, size, on_ends=on_ends, receipt=receipt,
            reply_address=destination if destination.startswith(REMOTE_TEMPORARY) else "",
        )  # fmt: skip

    def bulk_sender(self, template: Outgoing, variable_headers: Sequence[str]) -> StompBulkSender:
        """See `infertool.brokers.port.Broker`."""
        return StompBulkSender(template, variable_headers, self._supervisor)

    def browse(self, queue: str, *, limit: int, timeout_s: float, selector: Selector | None = None) -> Browse:
        """See `infertool.brokers.port.Broker`."""
        connection = self._supervisor.connected()
        if connection.dialect.capabilities.browse is Browsing.NONE:
            reason = f"{connection.dialect.name} has no browsing over STOMP: it would take the messages out"
            raise RefusedError(f"{self.address}: {reason}", address=self.address, reason=reason)
        messages = browse(
            connection, self._name, queue, limit=limit, timeout_s=timeout_s, selector=jms_selector(selector)
        )
        # Asked afterwards: a browse makes a queue that never was, and of such a one ActiveMQ tells no depth.
        measured = self.measure(queue, min(timeout_s, _MEASURE_S))
        depth = measured.size if measured else None
        return Browse(messages, complete=depth is not None and len(messages) >= depth, depth=depth)

    def measure(self, queue: str, timeout_s: float) -> Depth | None:
        """See `infertool.brokers.port.Broker`."""
        return self._probe.measure(queue, timeout_s)

    def connection_facts(self) -> ConnectionFacts:
        """See `infertool.brokers.examining.Examined`."""
        connection = self._supervisor.connected()
        return ConnectionFacts(
            product=connection.server or "a broker that does not tell its name",
            sends_every_s=connection.heartbeat.sends_every_s,
            receives_every_s=connection.heartbeat.receives_every_s,
            stamps=connection.dialect.stamps,
            depth_advice=connection.dialect.depth_advice,
            no_round_trip=connection.dialect.no_round_trip,
        )

    def examine(self, queue: str, timeout_s: float) -> QueueAccess:
        """See `infertool.brokers.examining.Examined`."""
        from infertool.brokers.stomp.examine import examine  # noqa: PLC0415  # only a diagnosis needs it

        return examine(self._supervisor.connected(), self._probe, self._name, queue, timeout_s)

    def reader_silent_s(self) -> float | None:
        """See `infertool.brokers.port.Monitored`."""
        connection = self._supervisor.current()
        return connection.reader_silent_s() if connection else None

    def oldest_sent_ms(self, queue: str, timeout_s: float) -> int | None:
        """See `infertool.brokers.port.Monitored`. Known where the broker can browse."""
        connection = self._supervisor.current()
        if connection is None or connection.dialect.capabilities.browse is Browsing.NONE:
            return None
        try:
            messages = browse(connection, self._name, queue, limit=1, timeout_s=timeout_s, selector="")
        except ServerError:
            return None
        return messages[0].properties.timestamp_ms if messages else None

    def close(self, timeout_s: float) -> None:
        """See `infertool.brokers.port.Broker`. Safe to call again."""
        self._probe.close()
        self._supervisor.close(timeout_s)
