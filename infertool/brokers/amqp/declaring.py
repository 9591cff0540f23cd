"""Declarations of queues: nothing is created unless it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pika import spec

from infertool.errors import UnroutableError

if TYPE_CHECKING:
    from infertool.brokers.amqp.session import Session

_TYPE: Final = "x-queue-type"


def passively(queue: str) -> Any:
    """Return the question for a queue: its messages and consumers, or a refusal."""
    return spec.Queue.Declare(queue=queue, passive=True)


def own(queue: str) -> Any:
    """Return the declaration of a queue that is one connection's, and ends with it."""
    return spec.Queue.Declare(queue=queue, exclusive=True, auto_delete=True)


def durable(queue: str, queue_type: str) -> Any:
    """Return the declaration of a queue that stays, of the type `classic` or `quorum`."""
    return spec.Queue.Declare(queue=queue, durable=True, arguments={_TYPE: queue_type})


class Declarer:
    """Declares missing queues, each once; what exists is left as it is."""

    def __init__(self, queue_type: str) -> None:
        self._queue_type = queue_type
        self._known: set[str] = set()

    def __call__(self, session: Session, queue: str) -> None:
        """Have `queue` exist. Raises RefusedError, ConnectionLostError."""
        if queue in self._known:
            return
        try:
            session.ask(passively(queue))
        except UnroutableError:
            session.ask(durable(queue, self._queue_type))
        self._known.add(queue)
