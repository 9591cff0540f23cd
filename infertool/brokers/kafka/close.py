"""The close of a consumer, also while its group shares the topic out anew.

A close beside an unfinished rebalance calls back twice: for what was unfinished, and for all partitions. librdkafka
takes the first answer as one for all partitions, leaves the group, and ends. What is committed in the second call may
be refused by then. Its answer is lost where it meets the end, and the answering thread, which has the interpreter's
lock, waits forever (librdkafka 2.16). After the end an answer fails at once.
"""

from __future__ import annotations

import contextlib
import time
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infertool.net.timing import left_s

# What calls of a consumer that has ended are answered with.
_ENDED: Final = KafkaError._DESTROY  # noqa: SLF001  # as librdkafka names its own errors
_MOST_S: Final = 30.0
_ASK_S: Final = 0.1


class Close:
    """Closes one consumer after another. Nothing is settled meanwhile: that is done before."""

    def __init__(self) -> None:
        self.is_under_way = False
        self._has_answered = False

    def run(self, consumer: Consumer) -> None:
        """Leave the group. librdkafka calls back meanwhile, and wants an `answer` each time."""
        self._has_answered = False
        self.is_under_way = True
        try:
            consumer.close()
        finally:
            self.is_under_way = False

    def answer(self, consumer: Consumer) -> None:
        """Give all partitions up."""
        if self._has_answered:
            _wait_for_end(consumer)
        self._has_answered = True
        with contextlib.suppress(KafkaException):  # it has ended
            consumer.incremental_unassign([])


def _wait_for_end(consumer: Consumer) -> None:
    """Wait until a consumer has ended. A call with a timeout is what can ask for it."""
    deadline = time.monotonic() + _MOST_S
    while left_s(deadline):
        try:
            consumer.committed([TopicPartition("any", 0)], timeout=_ASK_S)
        except KafkaException as fault:
            if fault.args[0].code() == _ENDED:
                return
