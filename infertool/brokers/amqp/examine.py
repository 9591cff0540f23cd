"""The rights on a queue of RabbitMQ, tried without taking or leaving a message.

RabbitMQ checks rights before arguments: a consumer with an impossible argument is refused for that, or for the right.
A mandatory message to a queue that does not exist comes back, or is refused for the right.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pika import spec

from infertool.brokers.amqp import declare, frames, messages
from infertool.brokers.amqp.channel import Channel
from infertool.brokers.amqp.connection import Connection
from infertool.brokers.examining import QueueAccess, Right
from infertool.errors import ConnectionLostError, ReceiptTimeoutError, RefusedError, ServerError, UnroutableError
from infertool.message import Outgoing

if TYPE_CHECKING:
    from infertool.brokers.amqp.management import QueueFacts
    from infertool.brokers.amqp.session import Session

# A priority is a number.
_IMPOSSIBLE: Final = {"x-priority": "infertool-asks"}
_FORBIDDEN: Final = "ACCESS_REFUSED"
_PRECONDITION: Final = "PRECONDITION_FAILED"
# Longest wait for the end of a connection. Seconds.
_GOODBYE_S: Final = 2.0
_EXCHANGE, _KEY = "dead-letter-exchange", "dead-letter-routing-key"


def examine(session: Session, queue: str, told: tuple[QueueFacts | None, str], timeout_s: float) -> QueueAccess:
    """See `infertool.brokers.examining.Examined`. `told` is what the management API says, and why it says nothing."""
    ask = partial(session.ask, timeout_s=timeout_s)
    write = _may_send(session, timeout_s)
    try:
        found = declare.waiting(ask, queue)
    except RefusedError as refused:
        unknown = Right(allowed=False, reason=refused.reason)
        return QueueAccess(exists=True, read=unknown, write=write, untold=refused.reason)
    if found is None:
        unknown = Right(allowed=None, reason="there is no such queue")
        return QueueAccess(exists=False, read=unknown, write=write, is_empty=True, untold="there is no such queue")
    facts, untold = told
    return QueueAccess(
        exists=True,
        read=_may_consume(ask, queue),
        write=write,
        is_empty=found[0] == 0,
        oldest_ms=round(facts.oldest_at * 1000) if facts and facts.oldest_at else None,
        policy=_policy(facts) if facts else None,
        untold=untold if facts is None else "RabbitMQ tells it of classic queues whose producers set a time",
    )


def _may_consume(ask: declare.Ask, queue: str) -> Right:
    try:
        ask(spec.Basic.Consume(queue=queue, arguments=_IMPOSSIBLE))
    except UnroutableError as gone:
        return Right(allowed=None, reason=gone.reason)
    except RefusedError as refused:
        if refused.reason.startswith(_PRECONDITION):
            return Right(allowed=True)
        return Right(allowed=False if refused.reason.startswith(_FORBIDDEN) else None, reason=refused.reason)
    except ConnectionLostError as lost:
        return Right(allowed=None, reason=lost.what)
    return Right(allowed=True)


def _may_send(session: Session, timeout_s: float) -> Right:
    """Try a send on a connection of its own: a broker that takes no messages reads nothing more from that."""
    target = session.target
    connection = Connection(target, session.vhost, 0, name="infertool", role="examine", on_end=lambda _connection: None)
    try:
        connection.open()
        channel = _Trial(connection)
        channel.open(timeout_s)
        nowhere = f"infertool.doctor.{secrets.token_hex(8)}"
        encoded = messages.encoded(messages.to_fields(Outgoing(nowhere, b""), target.address), target.address)
        head = frames.publish_head(channel.number, nowhere)
        connection.write(head + frames.content(channel.number, encoded, b"", connection.frame_max))
        # Answered after the message was, with or without a refusal of that.
        channel.call(spec.Basic.Qos(0, 1, False), timeout_s)  # noqa: FBT003  # as pika has it
    except RefusedError as refused:
        return Right(allowed=False if refused.reason.startswith(_FORBIDDEN) else None, reason=refused.reason)
    except ServerError as fault:
        return Right(allowed=None, reason=fault.what)
    finally:
        connection.close(0.0 if connection.blocked else _GOODBYE_S)
    return Right(allowed=True)


class _Trial(Channel):
    """A channel whose question ends when the broker says that it takes no messages."""

    def on_blocked(self) -> None:
        """See `Channel`."""
        if blocked := self.connection.blocked:
            address = self.connection.target.address
            self._answers.put(ReceiptTimeoutError(f"{address} takes no messages now: {blocked}", address=address))


def _policy(facts: QueueFacts) -> str:
    """Return what RabbitMQ does with messages of the queue that it gives up."""
    has: dict[str, Any] = {
        **facts.policy,
        **{name.removeprefix("x-"): value for name, value in facts.arguments.items()},
    }
    limit = "any number of deliveries" if facts.delivery_limit is None else f"at most {facts.delivery_limit} deliveries"
    if _EXCHANGE not in has:
        return f"{facts.type} queue, {limit}, then dropped"
    return (
        f"{facts.type} queue, {limit}, then to exchange {has[_EXCHANGE] or '(default)'}, key {has.get(_KEY, 'as sent')}"
    )
