"""A subscription to one topic for a group: many events of a partition in work, each settled when it is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import cast

from infertool.brokers.kafka.assignment import Order
from infertool.brokers.kafka.commits import Commits
from infertool.brokers.kafka.conventions import CAPABILITIES
from infertool.brokers.kafka.deliveries import Deliveries, Figures
from infertool.brokers.kafka.log_faults import Describe
from infertool.brokers.kafka.messages import KafkaMessage
from infertool.brokers.kafka.poller import Clients, Poller
from infertool.brokers.kafka.rebalance import Rebalance
from infertool.brokers.kafka.returns import Returns
from infertool.brokers.moving import ConfirmedMove, Wait, extra_seconds, move_in_steps
from infertool.brokers.partitioned import PartitionListener
from infertool.brokers.port import Move, OnSent
from infertool.errors import ConnectionLostError, InfertoolError, StaleMessagesError
from infertool.message import Message, Outgoing
from infertool.net.timing import left_s

_log = logging.getLogger(__name__)

# Sends an event, and tells once the broker holds it. It waits up to so many seconds before it sends.
Send = Callable[[Outgoing, OnSent, float], None]


class KafkaSubscription:
    """See `infertool.brokers.port.Subscription`, and `Partitioned`, `Joins` and `PassesOver` of `partitioned`."""

    def __init__(  # noqa: PLR0913  # all that a subscription has to know
        self,
        topic: str,
        *,
        group: str,
        window: int,
        order: Order,
        max_gap: int,
        clients: Clients,
        epochs: Iterator[int],
        send: Send,
        describe: Describe,
        is_connected: Callable[[], bool],
        timeout_s: float,
        on_fault: Callable[[InfertoolError], None],
    ) -> None:
        self._topic = topic
        self._group = group
        self._address = clients.address
        self._send = send
        self._timeout_s = timeout_s
        self._deliveries = Deliveries(window, max_gap)
        self._commits = Commits(topic, self._deliveries)
        self._returns = Returns(
            lambda messages: self._deliveries.give_back(_ours(messages), redelivered=True), is_connected
        )
        self._rebalance = Rebalance(
            topic, group,
            deliveries=self._deliveries, commits=self._commits, epochs=epochs, order=order, ahead=window,
            session_timeout_s=clients.session_timeout_s,
        )  # fmt: skip
        self._poller = Poller(
            topic, group,
            clients=clients, deliveries=self._deliveries, commits=self._commits, rebalance=self._rebalance,
            describe=describe, batch=min(window, max_gap), on_fault=on_fault,
        )  # fmt: skip

    @property
    def stale_acks(self) -> int:
        """How many acks came for events that another consumer has by now."""
        return self._deliveries.stale_acks

    @property
    def partitions(self) -> int | None:
        """See `infertool.brokers.partitioned.Joins`."""
        return len(self._deliveries.assigned) if self._rebalance.joined.is_set() else None

    @property
    def is_changed(self) -> bool:
        """Return True if there is something to commit."""
        return self._deliveries.is_changed()

    def start(self) -> None:
        """Join the group. Raises `RefusedError`, `UnroutableError`, `ConnectionLostError`.

        A group that does not answer in time is joined later.
        """
        self._poller.start(self._timeout_s)
        if self._poller.refusal:
            self.close(self._timeout_s)
            raise self._poller.refusal
        if self.partitions is None:
            _log.warning(
                "the group %s has not yet given partitions of %s to this consumer: it may wait for one that was "
                "killed, up to its session.timeout.ms (45 s unless set)", self._group, self._topic,
            )  # fmt: skip

    def renew(self) -> None:
        """Go on with a new connection: with a login or TLS files that changed, and with what waited for one."""
        self._poller.renew()
        self._returns.connected()

    def close(self, timeout_s: float) -> None:
        """Commit, and leave the group. What is in work comes again."""
        self._deliveries.close()
        self._poller.close(timeout_s)

    def receive(self, max_messages: int, timeout_s: float) -> list[Message]:
        """See `infertool.brokers.port.Subscription`. Returns at once when closed."""
        return [*self._deliveries.take(max_messages, timeout_s)]

    def ack(self, messages: Sequence[Message]) -> None:
        """See `infertool.brokers.port.Subscription`. A commit tells the broker within a second."""
        self._deliveries.settle(_ours(messages))

    def widen(self, window: int) -> None:
        """See `infertool.brokers.port.Widens`: the window is this consumer's own."""
        self._deliveries.widen(window)

    def listen(self, listener: PartitionListener) -> None:
        """See `infertool.brokers.partitioned.Partitioned`."""
        self._rebalance.listener = listener

    def release(self, messages: Sequence[Message]) -> None:
        """See `infertool.brokers.partitioned.Partitioned`. Those of partitions that stay are received again."""
        self._deliveries.give_back(_ours(messages), redelivered=False)

    def pass_over(self, messages: Sequence[Message]) -> None:
        """See `infertool.brokers.partitioned.PassesOver`."""
        self._deliveries.pass_over(_ours(messages))

    def figures(self) -> Figures:
        """Return what is shown of it."""
        return self._deliveries.figures()

    def committed(self) -> dict[str, int]:
        """Return the newest committed watermark of each partition, by its name; those without one are left out."""
        assigned = self._deliveries.assigned
        return {each.name: each.committed_offset for each in assigned if each.committed_offset is not None}

    def move(self, moves: Sequence[Move], timeout_s: float) -> None:
        """See `infertool.brokers.port.Subscription`. More than 100 moves are several steps, in order."""
        move_in_steps(moves, CAPABILITIES.max_moves, timeout_s, self.start_move)

    def start_move(self, moves: Sequence[Move], timeout_s: float) -> ConfirmedMove:
        """See `infertool.brokers.port.Subscription`.

        Waits also for a commit: a process that is killed after it does not send the same events once more.
        """
        messages = _ours([move.message for move in moves])
        if self._deliveries.has_stale(messages):
            raise StaleMessagesError(
                "the messages belong to partitions that another consumer has, or are settled; they come again there"
            )
        timeout_s += extra_seconds(moves)
        deadline = time.monotonic() + timeout_s
        return ConfirmedMove(
            moves,
            timeout_s,
            send=lambda outgoing, on_sent: self._send(outgoing, on_sent, left_s(deadline)),
            ack=self._settle_moved,
            failed=lambda _reason: self._returns.add(messages),
            address=self._address,
        )

    def _settle_moved(self, messages: Sequence[Message]) -> Wait:
        if not self._deliveries.settle_all(_ours(messages)):
            raise ConnectionLostError(
                f"a partition of {self._topic} went to another consumer during a move", address=self._address
            )
        committed = self._commits.request()
        return lambda: self._await(committed)

    def _await(self, committed: Future[None]) -> None:
        """Wait for a commit. One that fails is made again within a second: the events are settled here all the same."""
        try:
            committed.result(self._timeout_s)
        except Exception as fault:  # noqa: BLE001  # whatever became of it
            _log.debug("a move of events of %s is not committed yet: %s", self._topic, fault)


def _ours(messages: Sequence[Message]) -> Sequence[KafkaMessage]:
    """Return what this subscription gave out, by its type."""
    return cast("Sequence[KafkaMessage]", messages)
