"""The broker port on AMQP 0-9-1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from infertool.brokers.amqp import declare
from infertool.brokers.amqp.adapter import CAPABILITIES, CONVENTIONS
from infertool.brokers.amqp.browse import Look, browse
from infertool.brokers.amqp.bulk_sender import AmqpBulkSender
from infertool.brokers.amqp.connection import SPOKEN
from infertool.brokers.amqp.conventions import AmqpConventions
from infertool.brokers.amqp.declare import LEAVING, Declarer
from infertool.brokers.amqp.replies import AmqpReplies
from infertool.brokers.amqp.session import Host, Session
from infertool.brokers.amqp.subscription import AmqpSubscription
from infertool.brokers.declaring import QueueSpec, QueueState, Standing
from infertool.brokers.examining import ConnectionFacts, QueueAccess
from infertool.brokers.port import Browse, Capabilities, Depth, OnEnds, OnMessages, OnSent, Selector
from infertool.brokers.registry import BrokerUrl
from infertool.brokers.supervisor import Supervisor
from infertool.brokers.target import targets
from infertool.errors import (
    ConnectionLostError,
    OccupiedError,
    RefusedError,
    ServerError,
    SettingsError,
    UnroutableError,
)
from infertool.message import Outgoing
from infertool.net.connection_state import OnConnection
from infertool.net.timing import FullJitter
from infertool.settings.broker import BrokerSettings

if TYPE_CHECKING:
    from infertool.brokers.amqp.management import Management, QueueFacts

_DEFAULT_VHOST: Final = "/"


class AmqpBroker:
    """See `infertool.brokers.port.Broker`."""

    def __init__(
        self, settings: BrokerSettings, url: BrokerUrl, *, name: str, on_connection: OnConnection | None
    ) -> None:
        hosts = [Host(target, url.vhost or _DEFAULT_VHOST, name) for target in targets(settings, url, SPOKEN)]
        self._receipt_timeout_s = settings.receipt_timeout_s
        self._declare = Declarer(settings.queue_type if settings.declare else "")
        self._counted_browse = settings.counted_browse
        self._management = _management(settings, hosts[0])
        self._supervisor: Supervisor[Session] = Supervisor(
            hosts,
            FullJitter(settings.reconnect_base_s, settings.reconnect_max_s),
            name="infertool-amqp-supervisor",
            on_connection=on_connection,
        )

    @property
    def address(self) -> str:
        """See `infertool.brokers.port.Broker`."""
        return self._supervisor.address

    @property
    def capabilities(self) -> Capabilities:
        """See `infertool.brokers.port.Broker`."""
        return CAPABILITIES

    @property
    def conventions(self) -> AmqpConventions:
        """See `infertool.brokers.port.Broker`."""
        return CONVENTIONS

    def connect(self) -> None:
        """See `infertool.brokers.port.Broker`."""
        self._supervisor.connect()

    def subscribe(
        self, queue: str, *, window: int, selector: Selector | None = None, exclusive: bool = False
    ) -> AmqpSubscription:
        """See `infertool.brokers.port.Broker`. Without a connection now, it begins with the next one."""
        self._refuse_selector(selector)
        subscription = AmqpSubscription(
            queue,
            window=window,
            exclusive=exclusive,
            current=self._supervisor.current,
            declarer=LEAVING if exclusive else self._declare,
        )
        self._supervisor.add(subscription)
        return subscription

    def send(self, outgoing: Outgoing, on_sent: OnSent, *, declare: bool = True, room_s: float | None = None) -> None:
        """See `infertool.brokers.port.Broker`. Waits while 500 sends, or 8 MiB, are unconfirmed.

        Raises RefusedError at once for a message that AMQP cannot hold, ReceiptTimeoutError when the broker takes none.
        """
        session = self._supervisor.connected()
        if declare and not session.is_own_thread():
            self._declare(session, outgoing.destination)
            on_sent = self._declare.watching(outgoing.destination, on_sent)
        session.publisher.send(outgoing, on_sent, self._receipt_timeout_s, room_s)

    def send_all(self, messages: Sequence[tuple[Outgoing, Any]], on_ends: OnEnds) -> None:
        """See `infertool.brokers.port.Broker`."""
        try:
            self._supervisor.connected().publisher.send_all(messages, on_ends, self._receipt_timeout_s)
        except ConnectionLostError as error:
            on_ends([(token, error) for _, token in messages])

    def bulk_sender(self, template: Outgoing, variable_headers: Sequence[str]) -> AmqpBulkSender:
        """See `infertool.brokers.port.Broker`."""
        return AmqpBulkSender(template, variable_headers, self._supervisor)

    def browse(self, queue: str, *, limit: int, timeout_s: float, selector: Selector | None = None) -> Browse:
        """See `infertool.brokers.port.Broker`."""
        session = self._supervisor.connected()
        self._refuse_selector(selector)
        known, untold = self._told(queue)
        look = Look(
            queue=queue, limit=limit, timeout_s=timeout_s, counted=self._counted_browse, known=known, untold=untold
        )
        return browse(session, look)

    def _told(self, queue: str) -> tuple[QueueFacts | None, str]:
        """Return what the management API tells of a queue, and why it tells nothing."""
        if self._management is None:
            return None, "set broker.management_url"
        try:
            return self._management.queue(queue), "check that the management API is of the same broker"
        except (ServerError, SettingsError) as fault:
            return None, str(fault)

    def declare(self, specs: Sequence[QueueSpec], *, timeout_s: float, create: bool) -> list[QueueState]:
        """See `infertool.brokers.declaring.DeclaresQueues`."""
        ask = partial(self._supervisor.connected().ask, timeout_s=timeout_s)
        states = [declare.examine(ask, spec, self._told(spec.name)[0]) for spec in specs]
        if not create:
            return states
        missing = Standing.MISSING
        return [declare.create(ask, state.spec) if state.standing is missing else state for state in states]

    def open_replies(self, on_replies: OnMessages) -> AmqpReplies:
        """See `infertool.brokers.port.Broker`."""
        replies = AmqpReplies(on_replies)
        self._supervisor.add(replies)
        return replies

    def reply_exists(self, address: str, timeout_s: float) -> bool | None:
        """See `infertool.brokers.port.Broker`."""
        session = self._supervisor.current()
        if session is None:
            return None
        try:
            session.ask(declare.passively(address), timeout_s)
        except UnroutableError:
            return False
        except OccupiedError:
            # It is another connection's own queue.
            return True
        except ServerError:
            return None
        return True

    def measure(self, queue: str, timeout_s: float) -> Depth | None:
        """See `infertool.brokers.port.Broker`. What is unacked, the management API tells; up to 5 s late."""
        session = self._supervisor.current()
        if session is None:
            return None
        try:
            found = declare.waiting(partial(session.ask, timeout_s=timeout_s), queue)
        except ServerError:
            return None
        if found is None:
            return None
        ready, consumers = found
        known = self._management.try_queue(queue) if self._management else None
        # A sample. Without a consumer nothing is in flight any more, whatever it says.
        unacked = known.unacked if known and consumers else None
        return Depth(
            size=ready + (unacked or 0),
            in_flight=unacked,
            consumers=consumers,
            enqueued=known.published if known else None,
            dequeued=known.acked if known else None,
        )

    def connection_facts(self) -> ConnectionFacts:
        """See `infertool.brokers.examining.Examined`."""
        connection = self._supervisor.connected().consuming
        interval_s = connection.heartbeat_s or None
        product = connection.product or "a broker that does not tell its name"
        return ConnectionFacts(product=product, sends_every_s=interval_s, receives_every_s=interval_s)

    def examine(self, queue: str, timeout_s: float) -> QueueAccess:
        """See `infertool.brokers.examining.Examined`."""
        from infertool.brokers.amqp.examine import examine  # noqa: PLC0415  # only a diagnosis needs it

        return examine(self._supervisor.connected(), queue, self._told(queue), timeout_s)

    def reader_silent_s(self) -> float | None:
        """See `infertool.brokers.port.Monitored`."""
        session = self._supervisor.current()
        return session.consuming.reader_silent_s() if session else None

    def oldest_sent_ms(self, queue: str, timeout_s: float) -> int | None:  # noqa: ARG002  (the API has its own)
        """See `infertool.brokers.port.Monitored`. The management API tells it of classic queues."""
        known = self._management.try_queue(queue) if self._management else None
        return round(known.oldest_at * 1000) if known and known.oldest_at else None

    def close(self, timeout_s: float) -> None:
        """See `infertool.brokers.port.Broker`. Safe to call again."""
        self._supervisor.close(timeout_s)
        if self._management:
            self._management.close()

    def _refuse_selector(self, selector: Selector | None) -> None:
        if selector is not None:
            reason = "RabbitMQ has no selectors"
            raise RefusedError(f"{self.address}: {reason}", address=self.address, reason=reason)


def _management(settings: BrokerSettings, host: Host) -> Management | None:
    if not settings.management_url:
        return None
    # It takes 0.1 s to import.
    from infertool.brokers.amqp.management import Management  # noqa: PLC0415

    target = host.target
    return Management(settings, settings.management_url, user=target.user, password=target.password, vhost=host.vhost)
