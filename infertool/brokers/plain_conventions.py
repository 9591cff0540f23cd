"""How brokers spell queues whose names need no prefix, and that carry every header as it is."""

from __future__ import annotations

from abc import ABC, abstractmethod

_MOST_HEADERS = 1000


class PlainConventions(ABC):
    """See `infertool.brokers.port.Conventions`: a queue is its name, one at a time, and no header is special."""

    max_headers: int = _MOST_HEADERS
    set_by_adapter: frozenset[str] = frozenset()
    reserved: frozenset[str] = frozenset()
    death_marks: frozenset[str] = frozenset()

    @abstractmethod
    def queue(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`."""

    def source(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`: only one queue is offered."""
        return self.queue(text)

    def short(self, queue: str) -> str:
        """See `infertool.brokers.port.Conventions`."""
        return queue

    @abstractmethod
    def is_queue(self, text: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""

    def is_lasting(self, address: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return self.is_queue(address)

    def covers(self, source: str, queue: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return source == queue

    def is_refused(self, name: str, value: str) -> bool:  # noqa: ARG002  # none is
        """See `infertool.brokers.port.Conventions`."""
        return False

    def is_sendable(self, name: str, value: str) -> bool:  # noqa: ARG002  # all are
        """See `infertool.brokers.port.Conventions`."""
        return True

    def fits(self, name: str, value: str) -> bool:  # noqa: ARG002  # all do
        """See `infertool.brokers.port.Conventions`."""
        return True

    def keeps_type(self, text: str, tag: str) -> bool:  # noqa: ARG002  # of all
        """See `infertool.brokers.port.Conventions`."""
        return True
