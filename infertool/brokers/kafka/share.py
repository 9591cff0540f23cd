"""A subscription to one topic for a share group (KIP-932, experimental): each event is accepted or released alone.

A poll is a round: librdkafka gives the next one only when every event of the last is accepted or released. No lock can
be renewed: what is not done at its end is released, and comes again. What the group would forget, because it was
delivered too often, is sent to the end of the topic first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from infertool.brokers import callbacks
from infertool.brokers.kafka.client import Clients
from infertool.brokers.kafka.conventions import CAPABILITIES
from infertool.brokers.kafka.errors import code_of, is_fatal, translate
from infertool.brokers.kafka.returns import Returns
from infertool.brokers.kafka.share_group import Group
from infertool.brokers.kafka.share_outcomes import Outcomes, answer
from infertool.brokers.kafka.share_round import Round, ShareMessage, to_share_message
from infertool.brokers.kafka.subscription import Send
from infertool.brokers.moving import ConfirmedMove, Wait, extra_seconds, move_in_steps
from infertool.brokers.partitioned import PartitionListener
from infertool.brokers.port import Move
from infertool.errors import ConnectionLostError, InfertoolError, StaleMessagesError
from infertool.message import Message
from infertool.net.timing import FullJitter, left_s

_log = logging.getLogger(__name__)

_POLL_S: Final = 0.25
# A refusal shows with the first poll.
_FIRST_S: Final = 3.0
_REPORT_S: Final = 60.0
_BACKOFF: Final = FullJitter(0.5, 10.0)
_LISTENER: Final = "a listener of partitions"


class ShareSubscription:
    """See `infertool.brokers.port.Subscription` and `Partitioned`: a partition is revoked when its locks run out."""

    def __init__(  # noqa: PLR0913  # all that a subscription has to know
        self,
        topic: str,
        *,
        group: Group,
        window: int,
        clients: Clients,
        epochs: Iterator[int],
        send: Send,
        is_connected: Callable[[], bool],
        timeout_s: float,
        on_fault: Callable[[InfertoolError], None],
    ) -> None:
        self._topic = topic
        self._group = group
        self._clients = clients
        self._epochs = epochs
        self._send = send
        self._timeout_s = timeout_s
        self._on_fault = on_fault
        self._round = Round(window)
        self._returns = Returns(self._round.repeat, is_connected)
        self._outcomes = Outcomes(topic, group.terms.most_deliveries, send=send, timeout_s=timeout_s)
        self._listener: PartitionListener | None = None
        self._refusal: InfertoolError | None = None
        # Set after the first poll.
        self._polled = threading.Event()
        self._closing = threading.Event()
        self._reported: dict[int, float] = {}
        # Of the present consumer.
        self._credentials: object = None
        self._is_outdated = False
        self._thread = threading.Thread(target=self._run, name=f"infertool-kafka-share-{topic}", daemon=True)

    @property
    def stale_acks(self) -> int:
        """How many acks came for events whose lock had run out."""
        return self._round.stale_acks

    def start(self) -> None:
        """Join the group. Raises `RefusedError`, `SettingsError`."""
        self._clients.share_consumer(self._group.name).close()
        terms = self._group.terms
        _log.warning(
            "share groups are experimental: %s is read by the share group %s. An event that takes longer than %g s is "
            "delivered again, %d times at most, and those of a poll are done before the next poll",
            self._topic, self._group.name, terms.usable_s, terms.most_deliveries,
        )  # fmt: skip
        self._thread.start()
        self._polled.wait(min(_FIRST_S, self._timeout_s))
        if self._refusal:
            self.close(self._timeout_s)
            raise self._refusal

    def renew(self) -> None:
        """Go on with a new connection: with a login or TLS files that changed, and with what waited for one."""
        now = self._clients.credentials()
        self._is_outdated = now is not None and now != self._credentials
        self._returns.connected()

    def close(self, timeout_s: float) -> None:
        """Accept what is done, release the rest, and leave the group."""
        self._closing.set()
        self._round.close()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def receive(self, max_messages: int, timeout_s: float) -> list[Message]:
        """See `infertool.brokers.port.Subscription`. Returns at once when closed."""
        return self._round.take(max_messages, timeout_s)

    def ack(self, messages: Sequence[Message]) -> None:
        """See `infertool.brokers.port.Subscription`: accepts them."""
        self._round.settle(messages)

    def listen(self, listener: PartitionListener) -> None:
        """See `infertool.brokers.partitioned.Partitioned`."""
        self._listener = listener

    def release(self, messages: Sequence[Message]) -> None:
        """See `infertool.brokers.partitioned.Partitioned`. Any consumer of the group gets them."""
        self._round.give_back(messages)

    def move(self, moves: Sequence[Move], timeout_s: float) -> None:
        """See `infertool.brokers.port.Subscription`. More than 100 moves are several steps, in order."""
        move_in_steps(moves, CAPABILITIES.max_moves, timeout_s, self.start_move)

    def start_move(self, moves: Sequence[Move], timeout_s: float) -> ConfirmedMove:
        """See `infertool.brokers.port.Subscription`. Waits until the broker knows that the events are accepted."""
        messages = [move.message for move in moves]
        if self._round.has_stale(messages):
            raise StaleMessagesError("the locks of the messages ran out, or they are settled; they come again")
        timeout_s += extra_seconds(moves)
        deadline = time.monotonic() + timeout_s
        return ConfirmedMove(
            moves,
            timeout_s,
            send=lambda outgoing, on_sent: self._send(outgoing, on_sent, left_s(deadline)),
            ack=self._settle_moved,
            failed=lambda _reason: self._returns.add(messages),
            address=self._clients.address,
        )

    def _settle_moved(self, messages: Sequence[Message]) -> Wait:
        told: Future[None] = Future()
        if not self._round.settle_all(messages, told):
            raise ConnectionLostError(
                f"the lock of an event of {self._topic} ran out during a move", address=self._clients.address
            )
        return lambda: self._await(told)

    def _await(self, told: Future[None]) -> None:
        try:
            told.result(self._timeout_s)
        except Exception as fault:  # noqa: BLE001  # whatever became of it, the broker delivers it again
            _log.debug("a move of events of %s is not accepted yet: %s", self._topic, fault)

    def _run(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            consumer = None
            since = time.monotonic()
            try:
                self._credentials, self._is_outdated = self._clients.credentials(), False
                consumer = self._clients.share_consumer(self._group.name)
                consumer.set_acknowledgement_commit_callback(self._acknowledged)
                consumer.subscribe([self._topic])
                self._poll(consumer)
            except Exception as fault:  # noqa: BLE001  # a thread that polls no more would look like an empty topic
                attempt = 1 if time.monotonic() - since > _BACKOFF.cap_s else attempt + 1
                self._report(self._translated(fault), -attempt)
            finally:
                self._leave(consumer)
            self._closing.wait(_BACKOFF.wait(attempt))

    def _leave(self, consumer: Any) -> None:
        self._revoke()
        if consumer:
            try:
                consumer.close()
            except (KafkaException, RuntimeError) as fault:
                _log.debug("closing a consumer of %s: %s", self._topic, fault)
        answer(self._round.outcomes(0)[2])

    def _poll(self, consumer: Any) -> None:
        while not (self._closing.is_set() or self._is_outdated):
            since = time.monotonic()
            records = consumer.poll(_POLL_S)
            messages, epoch = [], next(self._epochs)
            for record in records:
                if record.error():
                    self._failed(record.error())
                else:
                    messages.append(to_share_message(record, epoch))
            self._polled.set()
            if messages:
                _log.debug("a round of %s has %d events", self._topic, len(messages))
                self._round.begin(messages)
                self._work_off(consumer, since + self._group.terms.usable_s)

    def _work_off(self, consumer: Any, deadline: float) -> None:
        """Tell the broker what becomes of a round, until all of it is done or its lock ends."""
        while not (self._round.is_empty or self._closing.is_set()) and (left := left_s(deadline)):
            self._outcomes.tell(consumer, *self._round.outcomes(left))
        begun, waiting = self._revoke()
        if begun and not self._closing.is_set():
            _log.warning(
                "%d events of %s were not done before their lock ended, and are released: keep consume.timeout_s below "
                "%g s, or raise the share group's share.record.lock.duration.ms",
                len(begun), self._topic, self._group.terms.usable_s,
            )  # fmt: skip
        if waiting and not self._closing.is_set():
            _log.warning(
                "%d events of %s were not begun before their lock ended, and are released: have producers send smaller "
                "batches, or raise the concurrency or the share group's share.record.lock.duration.ms",
                len(waiting), self._topic,
            )  # fmt: skip
        self._outcomes.tell(consumer, *self._round.outcomes(0), also=[*begun, *waiting])

    def _revoke(self) -> tuple[list[ShareMessage], list[ShareMessage]]:
        """Have nothing of a round settled any more. Return what was in work, and what had not begun."""
        partitions = self._round.partitions
        if self._listener and partitions:
            callbacks.tell(self._listener.revoking, partitions, _LISTENER)
        left = self._round.end()
        if self._listener and partitions:
            callbacks.tell(self._listener.revoked, partitions, _LISTENER)
        return left

    def _acknowledged(self, offsets: Any, fault: Any) -> None:
        """Hear what the broker says of acknowledgements. What it refuses it delivers again."""
        _log.debug("acknowledged of %s: %s (%s)", self._topic, offsets, fault)
        if fault:
            count = sum(map(len, offsets.values()))
            _log.warning("%d acknowledgements of %s were refused: %s", count, self._topic, fault)

    def _failed(self, error: KafkaError) -> None:
        if is_fatal(error):
            raise KafkaException(error)
        self._report(self._translated(KafkaException(error)), error.code())

    def _translated(self, fault: Exception) -> InfertoolError:
        if isinstance(fault, InfertoolError):
            return fault
        if not isinstance(fault, KafkaException):
            _log.error("reading %s failed; a new consumer begins", self._topic, exc_info=fault)
            return ConnectionLostError(f"{self._topic}: {fault}", address=self._clients.address)
        error = fault.args[0]
        about = self._group.name if code_of(error) == KafkaError.GROUP_AUTHORIZATION_FAILED else self._topic
        return translate(error, self._clients.address, of=about)

    def _report(self, fault: InfertoolError, code: int) -> None:
        """Tell of an error, unless it was told within the last minute."""
        if not self._polled.is_set() and not isinstance(fault, ConnectionLostError):
            self._refusal = fault
            self._polled.set()
            return
        now = time.monotonic()
        if now - self._reported.get(code, -_REPORT_S) >= _REPORT_S:
            self._reported[code] = now
            self._on_fault(fault)
