"""Finding dead letters by their ids without taking anything out, also where a browse does not reach."""

from __future__ import annotations

import time
from collections.abc import Iterable

from infertool.brokers.port import Broker, Browse
from infertool.deadletter import ids
from infertool.deadletter import letter as letters
from infertool.deadletter.letter import DeadLetter
from infertool.errors import NothingMatchedError
from infertool.message import Message

# Measured on ActiveMQ 5.17.2 with its default policy: each browse whose selector finds nothing brings 200 more messages
# into the broker's memory, where the next such browse looks. An unfiltered browse shows the first 400, always.
_FURTHER_EACH_TIME = 200


def find(broker: Broker, queue: str, wanted: str, *, limit: int, timeout_s: float) -> DeadLetter:
    """Return the first letter that is known as `wanted`. Raises `NothingMatchedError`.

    `limit` bounds one browse, `timeout_s` all of them.
    """
    deadline = time.monotonic() + timeout_s
    browse = broker.browse(queue, limit=limit, timeout_s=timeout_s)
    found = find_in(broker, queue, browse, wanted, deadline)
    if not found:
        raise NothingMatchedError(f"{queue} shows no message with the id {wanted}", advice=_advice(browse))
    return found[0]


def find_in(broker: Broker, queue: str, browse: Browse, wanted: str, deadline: float) -> list[DeadLetter]:
    """Return the letters that are known as `wanted`: those in `browse`, else the first further back.

    Further back only headers are looked at. `deadline` is in the monotonic clock.
    """
    found = _among(browse.messages, wanted)
    rounds = 0 if browse.complete else (browse.depth or 0) // _FURTHER_EACH_TIME + 1
    selector = ids.selector(wanted)
    while not found and rounds and (left := deadline - time.monotonic()) > 0:
        found = _among(broker.browse(queue, limit=1, timeout_s=left, selector=selector).messages, wanted)
        rounds -= 1
    return found


def _among(messages: Iterable[Message], wanted: str) -> list[DeadLetter]:
    known = frozenset({wanted})
    return [letter for letter in map(letters.read, messages) if ids.is_known_as(letter, known)]


def _advice(browse: Browse) -> str:
    return "" if browse.complete else "it may stand further back than the broker shows: replay-dlq --id sees all"
