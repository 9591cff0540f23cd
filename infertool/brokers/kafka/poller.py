"""The thread that polls, always: a group drops a consumer that does not, however long its events take."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from infertool.brokers.kafka.assignment import Assignment
from infertool.brokers.kafka.commits import Commits
from infertool.brokers.kafka.deliveries import Deliveries
from infertool.brokers.kafka.errors import code_of, is_fatal, translate
from infertool.brokers.kafka.log_faults import Describe, LogFaults
from infertool.brokers.kafka.messages import to_messages
from infertool.brokers.kafka.rebalance import Rebalance
from infertool.errors import ConnectionLostError, InfertoolError, ServerError
from infertool.net.timing import FullJitter

_log = logging.getLogger(__name__)

# A commit that is asked for, and partitions that can be read again, wait for the end of a poll. Seconds.
_POLL_S: Final = 0.02
# Records of one read, beyond the limits of what may wait.
_MOST_RECORDS: Final = 500
_ASK_S: Final = 5.0
# The same error is reported again after this time. Seconds.
_REPORT_S: Final = 60.0
# After an error that ends a consumer.
_BACKOFF: Final = FullJitter(0.5, 10.0)
# The position of a partition is not in its log.
_OUTSIDE: Final = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001  # as librdkafka names its own errors
_END: Final = KafkaError._PARTITION_EOF  # noqa: SLF001  # as above
# The process did not run for longer than the group waits: its partitions are lost, which is told.
_STOPPED: Final = KafkaError._MAX_POLL_EXCEEDED  # noqa: SLF001  # as above


class Clients(Protocol):
    """Makes consumers for one cluster.

    `member` is the id of a static member of groups, empty for none; `protocol` is that of groups, `classic` or
    `consumer`.
    """

    @property
    def address(self) -> str:
        """The address for people."""

    @property
    def member(self) -> str:
        """See above."""

    @property
    def protocol(self) -> str:
        """See above."""

    @property
    def session_timeout_s(self) -> float:
        """After this time without a word, a group drops a consumer."""

    def credentials(self) -> object:
        """Return what changes when the login or a TLS file does; None while that is not known."""

    def consumer(self, group: str, **properties: Any) -> Consumer:
        """Return a consumer that commits nothing by itself. Raises `SettingsError`."""


class Poller:
    """Reads one topic for a group, by one consumer after another if one cannot go on.

    `on_fault` is told of errors, each at most once a minute. `refusal` is the first error before the group was joined.
    """

    def __init__(  # noqa: PLR0913  # as `KafkaSubscription`
        self,
        topic: str,
        group: str,
        *,
        clients: Clients,
        deliveries: Deliveries,
        commits: Commits,
        rebalance: Rebalance,
        describe: Describe,
        batch: int,
        on_fault: Callable[[InfertoolError], None],
    ) -> None:
        self.refusal: InfertoolError | None = None
        self._topic = topic
        self._group = group
        self._clients = clients
        self._deliveries = deliveries
        self._commits = commits
        self._rebalance = rebalance
        self._batch = min(batch, _MOST_RECORDS)
        self._on_fault = on_fault
        self._closing = rebalance.closing
        # Set when the group was joined and the topic is read, or when one of them was refused.
        self.settled = threading.Event()
        self._reads = False
        self._reported: dict[int, float] = {}
        self._log_faults = LogFaults(
            topic, deliveries=deliveries, rebalance=rebalance, describe=describe,
            on_error=lambda error: self._report(self._translated(error), error.code()),
        )  # fmt: skip
        # Of the present consumer.
        self._credentials: object = None
        self._is_outdated = False
        self._thread: threading.Thread | None = None

    def start(self, timeout_s: float) -> None:
        """Begin, and wait up to `timeout_s` for the group. Raises `ServerError`, `SettingsError`."""
        consumer = self._open()
        try:
            self._look_up(consumer, timeout_s)
        except ServerError:
            consumer.close()
            raise
        self._begin(consumer)
        self._thread = threading.Thread(
            target=self._run, args=(consumer,), name=f"infertool-kafka-{self._topic}", daemon=True
        )
        self._thread.start()
        self.settled.wait(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Commit, and leave the group, within `timeout_s`."""
        self._closing.set()
        if self._thread:
            self._thread.join(timeout_s)

    def renew(self) -> None:
        """Go on with another consumer if the login or a TLS file changed, from any thread."""
        now = self._clients.credentials()
        self._is_outdated = now is not None and now != self._credentials

    def _open(self) -> Consumer:
        self._credentials = self._clients.credentials()
        self._is_outdated = False
        properties: dict[str, Any] = {
            "on_commit": self._commits.confirmed,
            # A position outside the log is a loss, which is counted, or a topic that was made anew.
            "auto.offset.reset": "error",
            # The end of a partition shows that it may be read.
            "enable.partition.eof": True,
        }
        if self._clients.protocol == "classic":
            properties["partition.assignment.strategy"] = "cooperative-sticky"
        if self._clients.member:
            properties["group.instance.id"] = f"{self._clients.member}-{self._topic}"
        return self._clients.consumer(self._group, **properties)

    def _look_up(self, consumer: Consumer, timeout_s: float) -> None:
        """Raise what hides the topic from this client. What keeps it from reading shows when it reads."""
        try:
            topic = consumer.list_topics(self._topic, timeout=timeout_s).topics[self._topic]
        except KafkaException as fault:
            raise self._translated(fault.args[0]) from None
        if topic.error:
            raise self._translated(topic.error)

    def _begin(self, consumer: Consumer) -> None:
        rebalance = self._rebalance
        self._commits.consumer = consumer
        consumer.subscribe(
            [self._topic], on_assign=rebalance.assigned, on_revoke=rebalance.revoked, on_lost=rebalance.lost
        )

    def _run(self, consumer: Consumer | None = None) -> None:
        attempt = 0
        while not self._closing.is_set():
            try:
                if consumer is None:
                    consumer = self._open()
                    self._begin(consumer)
                since = time.monotonic()
                self._poll(consumer)
            except Exception as fault:  # noqa: BLE001  # a thread that polls no more would look like an empty topic
                attempt = 1 if consumer and time.monotonic() - since > _BACKOFF.cap_s else attempt + 1
                self._report(self._explained(fault), -attempt)
                self._end(consumer)
                consumer = None
                self._closing.wait(_BACKOFF.wait(attempt))
        if consumer:
            self._have_commit_answered(consumer)
        self._end(consumer)
        self._commits.close()

    def _have_commit_answered(self, consumer: Consumer) -> None:
        """Wait for the commit under way, as `Rebalance.step` does."""
        deadline = time.monotonic() + _ASK_S
        with contextlib.suppress(KafkaException):
            while self._commits.is_under_way and time.monotonic() < deadline:
                consumer.poll(_POLL_S)  # what it gives is not done, and comes again

    def _end(self, consumer: Consumer | None) -> None:
        """Leave the group: what is done is committed."""
        if consumer:
            try:
                self._rebalance.leave(consumer)
            except (KafkaException, RuntimeError) as fault:
                _log.debug("closing a consumer of %s: %s", self._topic, fault)
        self._commits.end()
        self._rebalance.lose_all()

    def _poll(self, consumer: Consumer) -> None:
        while not self._closing.is_set():
            has_room = self._deliveries.wait_for_room(_POLL_S)
            record = consumer.poll(_POLL_S if has_room else 0)
            if record is not None:
                self._sort([record, *(consumer.consume(self._batch, 0) if has_room else ())])
            if fault := self._rebalance.fault:
                self._rebalance.fault = None
                raise fault
            if self._is_outdated:
                # A last commit with a login that is not valid any more would take 45 s, and settle nothing.
                self._commits.consumer = None
                self._rebalance.lose_all()
                raise ConnectionLostError(
                    f"the login or a TLS file of {self._clients.address} changed: {self._topic} is read anew with it",
                    address=self._clients.address,
                )
            if self._rebalance.joined.is_set() and (self._reads or not self._deliveries.assigned):
                self.settled.set()
            self._log_faults.step(consumer)
            self._rebalance.step(consumer)
            self._flow(consumer)
            self._commits.step()

    def _sort(self, records: Sequence[Any]) -> None:
        if any(map(Record.error, records)):
            for record in records:
                if error := record.error():
                    self._failed(error, record)
            records = [record for record in records if not record.error()]
        self._reads = self._reads or bool(records)
        # librdkafka gives the records of a partition one after another, as it fetched them.
        for number, those in groupby(records, key=Record.partition):
            assignment = self._deliveries.find(f"{self._topic}/{number}")
            if assignment and not assignment.is_leaving:
                found = list(those)
                if not self._log_faults.is_other(assignment, found):
                    self._deliver(assignment, found)

    def _deliver(self, assignment: Assignment, records: Sequence[Any]) -> None:
        offsets = [record.offset() for record in records]
        fresh = self._deliveries.fresh(assignment, offsets)
        assignment.note_epoch(records[-1].leader_epoch())
        if len(fresh) < len(offsets):
            wanted = set(fresh)
            records = [record for record, offset in zip(records, offsets, strict=True) if offset in wanted]
        messages = to_messages(
            records, fresh, partition=assignment.name, epoch=assignment.epoch, before=assignment.taken_before
        )
        keys = [record.key() for record in records] if assignment.has_order else ()
        self._deliveries.put(assignment, messages, keys)

    def _flow(self, consumer: Consumer) -> None:
        """Pause and resume partitions."""
        to_pause, to_resume = self._deliveries.flow()
        if to_pause:
            consumer.pause(self._places(to_pause))
        if to_resume:
            consumer.resume(self._places(to_resume))
            self._wake(consumer, to_resume)

    def _wake(self, consumer: Consumer, resumed: Sequence[Assignment]) -> None:
        """Have partitions be fetched now: librdkafka waits up to 1 s where all of a broker's were paused.

        Pausing threw away what was fetched and not read, so that nothing is read twice.
        """
        for assignment in resumed:
            if assignment.offsets.end is not None:
                with contextlib.suppress(KafkaException):  # it is read all the same, later
                    consumer.seek(TopicPartition(self._topic, assignment.number, assignment.offsets.end))

    def _places(self, assignments: Sequence[Assignment]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, assignment.number) for assignment in assignments]

    def _failed(self, error: KafkaError, record: Any) -> None:
        code = error.code()
        if is_fatal(error):
            raise KafkaException(error)
        assignment = self._deliveries.find(f"{self._topic}/{record.partition()}")
        if code == _OUTSIDE:
            if assignment:
                self._log_faults.outside(assignment)
        elif code == _END:
            self._reads = True
            if assignment:
                self._log_faults.ended(assignment, record.offset())
        elif code != _STOPPED:
            self._report(self._translated(error), code)

    def _explained(self, fault: Exception) -> InfertoolError:
        if isinstance(fault, InfertoolError):
            return fault
        if isinstance(fault, KafkaException):
            return self._translated(fault.args[0])
        _log.error("reading %s failed; a new consumer begins", self._topic, exc_info=fault)
        return ConnectionLostError(f"reading {self._topic} failed: {fault!r}", address=self._clients.address)

    def _translated(self, error: KafkaError) -> InfertoolError:
        about = self._group if code_of(error) == KafkaError.GROUP_AUTHORIZATION_FAILED else self._topic
        return translate(error, self._clients.address, of=about)

    def _report(self, fault: InfertoolError, code: int) -> None:
        """Tell of an error, unless it was told within the last minute."""
        if not self.settled.is_set() and not isinstance(fault, ConnectionLostError):
            self.refusal = fault
            self.settled.set()
        now = time.monotonic()
        if now - self._reported.get(code, -_REPORT_S) < _REPORT_S:
            return
        self._reported[code] = now
        _log.warning("%s", fault)
        self._on_fault(fault)
