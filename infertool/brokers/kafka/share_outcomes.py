"""What becomes of events of a share group, told to the broker: accepted or released, and never forgotten."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

import msgspec
from confluent_kafka import AcknowledgeType

from infertool.brokers.kafka.share_round import ShareMessage
from infertool.brokers.kafka.subscription import Send
from infertool.errors import InfertoolError
from infertool.message import Outgoing
from infertool.net.timing import left_s

_log = logging.getLogger(__name__)

_COMMIT_S: Final = 10.0


class Outcomes:
    """Tells the broker. A group forgets an event after `most_deliveries`: it is sent anew by `send` before."""

    def __init__(self, topic: str, most_deliveries: int, *, send: Send, timeout_s: float) -> None:
        self._topic = topic
        self._most = most_deliveries
        self._send = send
        self._timeout_s = timeout_s

    def tell(
        self,
        consumer: Any,
        done: Sequence[ShareMessage],
        returned: Sequence[ShareMessage],
        waiting: Sequence[Future[None]],
        also: Sequence[ShareMessage] = (),
    ) -> None:
        """Accept what is done, release what is returned (and `also`), and answer who waits. Raises `KafkaException`."""
        back = [*returned, *also]
        try:
            saved = self._send_anew([message for message in back if message.deliveries >= self._most])
            for message in done:
                _acknowledge(consumer, message, AcknowledgeType.ACCEPT)
            for message in back:
                kind = AcknowledgeType.ACCEPT if message.id in saved else AcknowledgeType.RELEASE
                _acknowledge(consumer, message, kind)
            if done or back:
                consumer.commit_sync(_COMMIT_S)
        finally:  # what the broker does not know of comes again
            answer(waiting)

    def _send_anew(self, messages: Sequence[ShareMessage]) -> set[str]:
        """Send events to the end of the topic. Return the ids of those that are there."""
        ends: dict[str, Future[None]] = {}
        deadline = time.monotonic() + self._timeout_s
        for message in messages:
            ends[message.id] = sent = Future[None]()
            try:
                self._send(_again(message), partial(_end, sent), left_s(deadline))
            except InfertoolError as fault:
                _end(sent, fault)
        saved = {name for name, sent in ends.items() if self._is_there(name, sent, deadline)}
        if saved:
            _log.warning(
                "%d events of %s were delivered %d times without an end, and were sent anew to the end of the topic",
                len(saved), self._topic, self._most,
            )  # fmt: skip
        return saved

    def _is_there(self, name: str, sent: Future[None], deadline: float) -> bool:
        try:
            sent.result(left_s(deadline))
        except Exception as fault:  # noqa: BLE001  # whatever it was, the event is not there
            _log.error("%s is forgotten by its group: it could not be sent anew: %s", name, fault)
            return False
        return True


def answer(waiting: Sequence[Future[None]]) -> None:
    """Have those go on who wait for the broker to know."""
    for told in waiting:
        told.set_result(None)


def _end(sent: Future[None], error: Exception | None) -> None:
    if error:
        sent.set_exception(error)
    else:
        sent.set_result(None)


def _acknowledge(consumer: Any, message: ShareMessage, how: AcknowledgeType) -> None:
    topic, _, partition = message.partition.rpartition("/")
    consumer.acknowledge_offset(topic, int(partition), message.offset, how)


def _again(message: ShareMessage) -> Outgoing:
    properties = msgspec.structs.replace(message.properties, delivery_count=None)
    return Outgoing(message.source, message.body, message.kind, message.headers, properties, message.types)
