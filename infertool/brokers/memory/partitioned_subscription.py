"""A subscription to a queue with partitions, on the in-process broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infertool.brokers.memory.connection import Connection
from infertool.brokers.memory.subscription import MemorySubscription
from infertool.brokers.partitioned import PartitionListener
from infertool.message import Message


class PartitionedSubscription(MemorySubscription):
    """See `infertool.brokers.partitioned.Partitioned` and `PassesOver`. `released` is what was given back."""

    def __init__(self, queue: str, **options: Any) -> None:
        super().__init__(queue, **options)
        self.released: list[Message] = []
        self._told: PartitionListener | None = None

    def listen(self, listener: PartitionListener) -> None:
        """See `infertool.brokers.partitioned.Partitioned`."""
        self._told = listener

    def release(self, messages: Sequence[Message]) -> None:
        """See `infertool.brokers.partitioned.Partitioned`. The next consumer of their partition gets them."""
        self.released += messages

    def pass_over(self, messages: Sequence[Message]) -> None:
        """See `infertool.brokers.partitioned.PassesOver`."""
        self.released += messages

    def _listener(self) -> PartitionListener | None:
        return self._told

    def _is_current(self, connection: Connection, message: Message) -> bool:
        return connection.session.holds(message.token)

    def _settle(self, connection: Connection, tokens: Sequence[str]) -> None:
        connection.server.settle_held(connection.session, tokens)
