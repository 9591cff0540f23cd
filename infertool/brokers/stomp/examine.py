"""The rights on a queue over STOMP, tried without taking or leaving a message.

A send is tried in a transaction that is aborted, and reading by a subscription that takes nothing: one that browses, or
whose selector matches no message.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import replace
from typing import Final

from infertool.brokers.examining import QueueAccess, Right
from infertool.brokers.port import Browsing
from infertool.brokers.stomp.browse import browse
from infertool.brokers.stomp.connection import Connection
from infertool.brokers.stomp.conventions import is_pattern
from infertool.brokers.stomp.frames import encode
from infertool.brokers.stomp.receipts import Answer
from infertool.brokers.stomp.statistics import StatisticsProbe
from infertool.errors import RefusedError, ServerError
from infertool.message import Message, Outgoing
from infertool.net.timing import left_s

# Longest wait for the word that a queue exists. A user without the right to temporary queues never gets it. Seconds.
_EXISTS_S: Final = 10.0
# Longest wait for the end of a connection. Seconds.
_GOODBYE_S: Final = 2.0
# What a step gets whose time is over. Seconds.
_LEAST_S: Final = 0.1
_NOTHING: Final = "1 = 0"
_SUBSCRIPTION: Final = "examine"


def examine(main: Connection, probe: StatisticsProbe, name: str, queue: str, timeout_s: float) -> QueueAccess:
    """See `infertool.brokers.examining.Examined`."""
    dialect = main.dialect
    if not dialect.capabilities.selectors:
        unknown = Right(allowed=None, reason=f"{dialect.name} does not tell over STOMP; use amqp:// to see them")
        return QueueAccess(exists=None, read=unknown, write=unknown, untold=f"{dialect.name} does not tell over STOMP")
    if is_pattern(queue) or "?" in queue:
        unknown = Right(allowed=None, reason="it names several queues, or has options")
        return QueueAccess(exists=None, read=unknown, write=unknown, untold="it names several queues, or has options")
    exists = probe.exists(queue, min(_EXISTS_S, timeout_s))
    deadline = time.monotonic() + timeout_s
    untold = f"{dialect.name} does not tell over STOMP"
    if exists is False:
        unknown = Right(allowed=None, reason=f"{dialect.name} makes it at its first use")
        return QueueAccess(exists=False, is_made=True, read=unknown, write=unknown, is_empty=True, untold=untold)
    depth = probe.measure(queue, left_s(deadline)) if exists else None
    # A broker that takes no messages does not answer: that leaves time to look at the rest.
    write = _may_send(main, name, queue, time.monotonic() + left_s(deadline) / 2)
    if dialect.capabilities.browse is Browsing.NONE:
        read = _may_subscribe(main, name, queue, deadline)
        return QueueAccess(exists=exists, read=read, write=write, depth=depth, untold=untold)
    first: list[Message] = []
    read = Right(allowed=True)
    try:
        first = browse(main, name, queue, limit=1, timeout_s=max(_LEAST_S, left_s(deadline)), selector="")
    except RefusedError as refused:
        read = Right(allowed=False, reason=refused.reason)
    except ServerError as fault:
        read = Right(allowed=None, reason=fault.what)
    oldest_ms = first[0].properties.timestamp_ms if first else None
    is_empty = bool(read.allowed) and not first
    return QueueAccess(
        exists=exists, read=read, write=write, is_empty=is_empty, oldest_ms=oldest_ms, depth=depth, untold=untold
    )


def _may_send(main: Connection, name: str, queue: str, deadline: float) -> Right:
    transaction = f"examine-{secrets.token_hex(4)}"
    try:
        with _Beside(main, name, deadline) as connection:
            answer = Answer()
            receipt = connection.receipts.expect(answer, left_s(deadline))
            within = {"transaction": transaction}
            send = connection.dialect.send(Outgoing(queue, b""), {"receipt": receipt, **within})
            connection.write(encode("BEGIN", within) + send)
            right = _right(answer, deadline)
            connection.write(encode("ABORT", within))
            return right
    except ServerError as fault:
        return Right(allowed=None, reason=fault.what)


def _may_subscribe(main: Connection, name: str, queue: str, deadline: float) -> Right:
    try:
        with _Beside(main, name, deadline) as connection:
            (window,) = connection.dialect.prefetches(1, 1)
            place = connection.dialect.place(queue)
            headers = {"selector": _NOTHING, **window}
            answer = connection.subscribe(place, _SUBSCRIPTION, lambda _frames: None, ack="client", headers=headers)
            right = _right(answer, deadline)
            connection.unsubscribe(_SUBSCRIPTION)
            return right
    except ServerError as fault:
        return Right(allowed=None, reason=fault.what)


def _right(answer: Answer, deadline: float) -> Right:
    try:
        allowed = answer.wait(deadline - time.monotonic())
    except RefusedError as refused:
        return Right(allowed=False, reason=refused.reason)
    except ServerError as fault:
        return Right(allowed=None, reason=fault.what)
    return Right(allowed=True) if allowed else Right(allowed=None, reason="no answer in time")


class _Beside:
    """A connection beside the main one, which a refusal may end."""

    def __init__(self, main: Connection, name: str, deadline: float) -> None:
        self._deadline = deadline
        most_s = max(_LEAST_S, left_s(deadline))
        target = replace(main.target, connect_timeout_s=min(most_s, main.target.connect_timeout_s))
        client_id = f"{name}-examine-{os.getpid()}-{secrets.token_hex(3)}"
        self._connection = Connection(target, 0, client_id, lambda _connection: None)

    def __enter__(self) -> Connection:
        self._connection.open()
        return self._connection

    def __exit__(self, *_exc: object) -> None:
        # Its receipt says that what was written, such as an abort, was done.
        self._connection.close(max(_LEAST_S, min(_GOODBYE_S, left_s(self._deadline))))
