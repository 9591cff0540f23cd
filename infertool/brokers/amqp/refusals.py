"""What RabbitMQ says no to, in one line, and what to do then."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from infertool.errors import OccupiedError, RefusedError, UnroutableError

if TYPE_CHECKING:
    from infertool.brokers.amqp.connection import Connection

ACCESS_REFUSED, NOT_FOUND, LOCKED, PRECONDITION = 403, 404, 405, 406
NOT_ALLOWED: Final = 530
_QUEUE: Final = re.compile(r"no queue '([^']*)'")
_CONSUMER_TIMEOUT: Final = "delivery acknowledgement on channel"
_EXCLUSIVE_USE: Final = "exclusive use"
_DECLARED_OTHERWISE: Final = re.compile(r"(?:inequivalent|invalid) arg ")
_TOO_LARGE: Final = re.compile(r"message size \d+ is larger than (?:configured )?max size (\d+)")


def of(code: int, text: str, connection: Connection) -> RefusedError:
    """Return the error for a channel that the broker closed."""
    address = connection.target.address
    reason = connection.masked(text).partition("\n")[0]
    if code == NOT_FOUND and (found := _QUEUE.search(reason)):
        return missing(found[1], connection.vhost, address, reason)
    if code == LOCKED or (code == ACCESS_REFUSED and _EXCLUSIVE_USE in reason):
        return OccupiedError(
            f"{address} refused: another connection has the queue to itself: {reason}", address=address, reason=reason
        )
    return RefusedError(f"{address} refused: {reason}", address=address, reason=reason, advice=_advice(code, reason))


def _advice(code: int, reason: str) -> str:
    if code == ACCESS_REFUSED:
        return "give the user the permission (rabbitmqctl set_permissions)"
    if _CONSUMER_TIMEOUT in reason:
        return "a message was held for longer than the broker's consumer_timeout: raise that, or make the model quicker"
    if most_bytes(reason) is not None:
        return "send less, or raise the broker's max_message_size"
    if code == PRECONDITION and _DECLARED_OTHERWISE.search(reason):
        return "the queue was declared otherwise: change the setting, or delete the queue and declare it anew"
    return ""


def most_bytes(reason: str) -> int | None:
    """Return the most bytes that the body of a message may have, where a larger one was refused; else None."""
    found = _TOO_LARGE.search(reason)
    return int(found[1]) if found else None


def too_large(size: int, most: int, address: str) -> RefusedError:
    """Return the error for a message that is larger than the broker takes."""
    reason = f"message size {size} is larger than max size {most}"
    return RefusedError(
        f"{address} refused: {reason}", address=address, reason=reason, advice=_advice(PRECONDITION, reason)
    )


def missing(queue: str, vhost: str, address: str, reason: str = "") -> UnroutableError:
    """Return the error for a queue that does not exist."""
    return UnroutableError(
        f"there is no queue {queue} in the virtual host {vhost} of {address}",
        address=address,
        reason=reason or f"no queue '{queue}' in vhost '{vhost}'",
        advice="declare it, check its name, or use --declare",
    )


def login(code: int, text: str, connection: Connection) -> RefusedError:
    """Return the error for a connection that the broker closed before it was open."""
    address = connection.target.address
    reason = connection.masked(text).partition("\n")[0]
    if connection.tuned or code == NOT_ALLOWED:
        what, advice = (
            f"{address} refused the virtual host {connection.vhost}: {reason}",
            f"check the path of broker.url ({address}/VHOST) and the user's permissions there",
        )
    else:
        what, advice = f"{address} refused the login: {reason}", "check broker.user and broker.password"
    return RefusedError(what, address=address, reason=reason, advice=advice)
