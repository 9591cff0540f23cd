"""The broker port on Kafka: a queue is a topic, and what is settled is what the group has committed."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final, TypeVar

from infertool.brokers import weighted_queues
from infertool.brokers.declaring import QueueSpec, QueueState, Standing
from infertool.brokers.examining import ConnectionFacts, QueueAccess
from infertool.brokers.kafka import client, share_group, topics
from infertool.brokers.kafka.browse import browse
from infertool.brokers.kafka.bulk_sender import KafkaBulkSender
from infertool.brokers.kafka.conventions import (
    CAPABILITIES,
    CONVENTIONS,
    SHARE_CAPABILITIES,
    KafkaConventions,
    split_address,
)
from infertool.brokers.kafka.depth import Lags
from infertool.brokers.kafka.diagnosis import SPOKEN
from infertool.brokers.kafka.groups import OPTION, Groups, groups
from infertool.brokers.kafka.replies import KafkaReplies
from infertool.brokers.kafka.session import Cluster, Session
from infertool.brokers.kafka.share import ShareSubscription
from infertool.brokers.kafka.subscription import KafkaSubscription
from infertool.brokers.kafka.topics import Topics
from infertool.brokers.partitioned import Lag, TimeLimit
from infertool.brokers.port import Browse, Capabilities, Depth, OnEnds, OnMessages, OnSent, Selector
from infertool.brokers.registry import BrokerUrl
from infertool.brokers.supervisor import Supervisor
from infertool.brokers.target import targets
from infertool.errors import (
    BrowseRefusedError,
    ConnectionLostError,
    InfertoolError,
    RefusedError,
    ServerError,
    UsageError,
)
from infertool.message import Outgoing
from infertool.net.connection_state import ConnectionEvent, ConnectionState, OnConnection
from infertool.net.timing import FullJitter, left_s
from infertool.settings.broker import BrokerSettings

_log = logging.getLogger(__name__)

T = TypeVar("T")

# A topic is looked up for this time at least. Seconds.
_LEAST_LOOK_S: Final = 1.0


class KafkaBroker:
    """See `infertool.brokers.port.Broker`."""

    def __init__(
        self, settings: BrokerSettings, url: BrokerUrl, *, name: str, on_connection: OnConnection | None
    ) -> None:
        self._settings = settings
        self._timeout_s = settings.receipt_timeout_s
        self._clients = client.clients(settings, targets(settings, url, SPOKEN), name)
        self._groups: Groups = groups(url.scheme, url.options.get(OPTION, ""), _consumed(settings, url))
        self._topics = Topics(makes=settings.declare)
        self._lags = Lags()
        self._on_connection = on_connection
        self._supervisor: Supervisor[Session] = Supervisor(
            [Cluster(self._clients)],
            FullJitter(settings.reconnect_base_s, settings.reconnect_max_s),
            name="infertool-kafka-supervisor",
            on_connection=self._changed,
        )
        self._epochs = itertools.count(1)
        self._subscriptions: list[tuple[str, KafkaSubscription | ShareSubscription]] = []

    @property
    def address(self) -> str:
        """See `infertool.brokers.port.Broker`."""
        return self._supervisor.address

    @property
    def capabilities(self) -> Capabilities:
        """See `infertool.brokers.port.Broker`."""
        return SHARE_CAPABILITIES if self._groups.are_shared else CAPABILITIES

    @property
    def conventions(self) -> KafkaConventions:
        """See `infertool.brokers.port.Broker`."""
        return CONVENTIONS

    def connect(self) -> None:
        """See `infertool.brokers.port.Broker`."""
        self._supervisor.connect()

    def subscribe(
        self, queue: str, *, window: int, selector: Selector | None = None, exclusive: bool = False
    ) -> KafkaSubscription | ShareSubscription:
        """See `infertool.brokers.port.Broker`. Whoever is in the group shares the topic: nobody has it alone."""
        self._refuse_selector(selector)
        if exclusive:
            reason = "Kafka has no exclusive consumers"
            raise RefusedError(f"{self.address}: {reason}", address=self.address, reason=reason)
        session = self._supervisor.connected()
        self._topics.require(session, queue, self._timeout_s)
        known: dict[str, Any] = {
            "window": window, "clients": self._clients, "epochs": self._epochs, "send": self._send_within,
            "is_connected": lambda: self._supervisor.current() is not None, "timeout_s": self._timeout_s,
            "on_fault": _tell_fault,
        }  # fmt: skip
        name = self._groups.of(queue)
        subscription: KafkaSubscription | ShareSubscription
        if self._groups.is_shared(queue):
            group = share_group.Group(name, share_group.prepare(session, name, self._timeout_s))
            subscription = ShareSubscription(queue, group=group, **known)
        else:
            settings = self._settings
            subscription = KafkaSubscription(
                queue, group=name, order=settings.order, max_gap=settings.max_gap, describe=self._described, **known
            )
        subscription.start()
        self._subscriptions.append((queue, subscription))
        return subscription

    def send(self, outgoing: Outgoing, on_sent: OnSent, *, declare: bool = True, room_s: float | None = None) -> None:
        """See `infertool.brokers.port.Broker`. A topic is looked up before the first send, which would make it."""
        session = self._supervisor.connected()
        # The broker has to be asked, also where nothing is waited for: else it would never be known.
        limit_s = self._timeout_s if room_s is None else min(max(room_s, _LEAST_LOOK_S), self._timeout_s)
        self._topics.require(session, split_address(outgoing.destination)[0], limit_s, declare=declare)
        session.producer.send(outgoing, on_sent, room_s)

    def _send_within(self, outgoing: Outgoing, on_sent: OnSent, limit_s: float) -> None:
        self.send(outgoing, on_sent, room_s=limit_s)

    def send_all(self, messages: Sequence[tuple[Outgoing, Any]], on_ends: OnEnds) -> None:
        """See `infertool.brokers.port.Broker`."""
        known: list[tuple[Outgoing, Any]] = []
        failed: list[tuple[Any, Exception | None]] = []
        try:
            session = self._supervisor.connected()
            producer = session.producer
        except ConnectionLostError as error:
            on_ends([(token, error) for _, token in messages])
            return
        for outgoing, token in messages:
            try:
                self._topics.require(session, split_address(outgoing.destination)[0], self._timeout_s, declare=False)
            except InfertoolError as error:
                failed.append((token, error))
            else:
                known.append((outgoing, token))
        if failed:
            on_ends(failed)
        producer.send_all(known, on_ends)

    def bulk_sender(self, template: Outgoing, variable_headers: Sequence[str]) -> KafkaBulkSender:
        """See `infertool.brokers.port.Broker`."""
        self._topics.require(self._supervisor.connected(), split_address(template.destination)[0], self._timeout_s)
        return KafkaBulkSender(template, variable_headers, self._supervisor)

    def browse(self, queue: str, *, limit: int, timeout_s: float, selector: Selector | None = None) -> Browse:
        """See `infertool.brokers.port.Broker`. What the group of the queue has not settled, oldest first."""
        self._refuse_selector(selector)
        session = self._supervisor.connected()
        count = self._topics.partitions(session, queue, timeout_s)
        if count is None:
            return Browse([], complete=False, depth=None)
        if self._groups.is_shared(queue):
            reason = "Kafka does not tell what a share group has not settled"
            raise BrowseRefusedError(f"{self.address}: {reason}", address=self.address, reason=reason)
        return browse(session, queue, self._groups.of(queue), count, limit=limit, timeout_s=timeout_s)

    def declare(self, specs: Sequence[QueueSpec], *, timeout_s: float, create: bool) -> list[QueueState]:
        """See `infertool.brokers.declaring.DeclaresQueues`. Only the name of a topic is looked at."""
        session = self._supervisor.connected()
        states: list[QueueState] = []
        for spec in specs:
            self._topics.forget(spec.name)
            if self._topics.partitions(session, spec.name, timeout_s) is not None:
                states.append(QueueState(spec, Standing.EXISTS))
            elif create:
                topics.make(session, spec.name, timeout_s)
                states.append(QueueState(spec, Standing.SAME, created=True))
            else:
                states.append(QueueState(spec, Standing.MISSING))
        return states

    def open_replies(self, on_replies: OnMessages) -> KafkaReplies:
        """See `infertool.brokers.port.Broker`."""
        replies = KafkaReplies(self._settings.reply_topic, self._topics, on_replies, self._timeout_s)
        self._supervisor.add(replies)
        return replies

    def reply_exists(self, address: str, timeout_s: float) -> bool | None:
        """See `infertool.brokers.port.Broker`. Of a partition that is there, Kafka does not tell who reads it."""
        topic, partition = split_address(address)
        count = self._asked(lambda session: self._topics.partitions(session, topic, timeout_s) or 0)
        if count is None:
            return None
        return None if count > (partition or 0) else False

    def measure(self, queue: str, timeout_s: float) -> Depth | None:
        """See `infertool.brokers.port.Broker`."""
        return self._asked(lambda session: self._measured(self._lags.depth, session, queue, timeout_s))

    def lag(self, queue: str, timeout_s: float) -> Lag | None:
        """See `infertool.brokers.partitioned.Lagging`."""
        found = self._asked(lambda session: self._measured(self._lags.lag, session, queue, timeout_s))
        own = [
            subscription.figures()
            for topic, subscription in self._subscriptions
            if topic == queue and isinstance(subscription, KafkaSubscription)
        ]
        if found is None or not own:
            return found
        # A subscription counts what was deleted before it came to it; its commits are up to a second late.
        gap = max(found.gap, *(figures.gap for figures in own))
        return replace(found, lost=sum(figures.lost for figures in own), gap=gap)

    def group(self, queue: str) -> str:
        """See `infertool.brokers.partitioned.Log`."""
        return self._groups.of(queue)

    def time_limit(self, queue: str, timeout_s: float) -> TimeLimit | None:
        """See `infertool.brokers.partitioned.Limiting`: the lock of a share group."""
        if not self._groups.is_shared(queue):
            return None
        group = self._groups.of(queue)
        terms = self._asked(lambda session: share_group.told(session, group, timeout_s))
        remedy = f"raise share.record.lock.duration.ms of the share group {group}"
        return TimeLimit(terms.usable_s, remedy) if terms else None

    def _changed(self, event: ConnectionEvent) -> None:
        """Have subscriptions go on with a new connection."""
        if event.state is ConnectionState.CONNECTED:
            for _, subscription in self._subscriptions:
                subscription.renew()
        if self._on_connection:
            self._on_connection(event)

    def _described(self, topic: str) -> Future[Any] | None:
        """Ask for a topic's description; None without a connection."""
        session = self._supervisor.current()
        try:
            return topics.begin_describe(session, topic, self._timeout_s) if session else None
        except ConnectionLostError:
            return None

    def delete_settled(self, queue: str, timeout_s: float) -> int:
        """See `infertool.brokers.partitioned.Log`."""
        from infertool.brokers.kafka.truncate import delete_settled  # noqa: PLC0415  # only a drain needs it

        session = self._supervisor.connected()
        count = self._topics.partitions(session, queue, timeout_s) or 0
        return delete_settled(session, queue, self.group(queue), count, timeout_s)

    def oldest_sent_ms(self, queue: str, timeout_s: float) -> int | None:
        """See `infertool.brokers.port.Monitored`."""
        return self._asked(lambda session: self._measured(self._lags.oldest_ms, session, queue, timeout_s))

    def reader_silent_s(self) -> float | None:
        """See `infertool.brokers.port.Monitored`."""
        session = self._supervisor.current()
        return session.reader_silent_s() if session else None

    def connection_facts(self) -> ConnectionFacts:
        """See `infertool.brokers.examining.Examined`."""
        from infertool.brokers.kafka.examine import facts  # noqa: PLC0415  # only a diagnosis needs it

        return facts(self._supervisor.connected())

    def examine(self, queue: str, timeout_s: float) -> QueueAccess:
        """See `infertool.brokers.examining.Examined`."""
        from infertool.brokers.kafka.examine import examine  # noqa: PLC0415  # only a diagnosis needs it

        group = self._groups.of(queue)
        access = examine(self._supervisor.connected(), queue, group, timeout_s, makes=self._settings.declare)
        if not access.exists:
            return access
        if self._groups.is_shared(queue):
            return replace(
                access, time_limit=self.time_limit(queue, timeout_s), untold=share_group.UNTOLD.format(group)
            )
        depth = self.measure(queue, timeout_s)
        return replace(
            access,
            is_empty=depth is not None and depth.size == 0,
            oldest_ms=self.oldest_sent_ms(queue, timeout_s),
            depth=depth,
        )

    def close(self, timeout_s: float) -> None:
        """See `infertool.brokers.port.Broker`. Safe to call again.

        While no broker answers, only what is to be committed is waited for: one may come back in time.
        """
        deadline = time.monotonic() + timeout_s
        subscriptions, self._subscriptions = self._subscriptions, []
        is_away = self._supervisor.current() is None
        for _, subscription in subscriptions:
            has_time = not is_away or not isinstance(subscription, KafkaSubscription) or subscription.is_changed
            subscription.close(left_s(deadline) if has_time else 0.0)
        self._lags.close()
        self._supervisor.close(left_s(deadline))

    def _asked(self, question: Callable[[Session], T | None]) -> T | None:
        """Return the answer to a question, None where there is no connection or the broker does not answer."""
        session = self._supervisor.current()
        if session is None:
            return None
        try:
            return question(session)
        except ServerError as fault:
            _log.debug("%s does not tell: %s", self.address, fault)
            return None

    def _measured(
        self, how: Callable[[Session, str, str, int, float], T], session: Session, queue: str, timeout_s: float
    ) -> T | None:
        count = self._topics.partitions(session, queue, timeout_s)
        if self._groups.is_shared(queue):
            return None
        return None if count is None else how(session, queue, self._groups.of(queue), count, timeout_s)

    def _refuse_selector(self, selector: Selector | None) -> None:
        if selector is not None:
            reason = "Kafka has no selectors"
            raise RefusedError(f"{self.address}: {reason}", address=self.address, reason=reason)


def _tell_fault(fault: InfertoolError) -> None:
    _log.warning("%s", fault)


def _consumed(settings: BrokerSettings, url: BrokerUrl) -> frozenset[str]:
    """Return the topics that the settings name as those to consume; a name that is none is refused elsewhere."""
    try:
        names = weighted_queues.names(weighted_queues.spelled(settings.queue, CONVENTIONS.source))
    except UsageError:
        names = []
    return frozenset({*names, url.queue})
