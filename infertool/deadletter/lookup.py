"""Finding one dead letter by its id without taking anything out, also where a browse does not reach."""

from __future__ import annotations

import time

from infertool.brokers.port import Broker, Browse
from infertool.deadletter import letter as letters
from infertool.deadletter.letter import DeadLetter
from infertool.deadletter.selection import Selection
from infertool.errors import NothingMatchedError

# Measured on ActiveMQ 5.17.2 with its default policy: each browse whose selector finds nothing brings 200 more messages
# into the broker's memory, where the next such browse looks. An unfiltered browse shows the first 400, always.
_FURTHER_EACH_TIME = 200


def find(broker: Broker, queue: str, wanted: str, *, limit: int, timeout_s: float) -> DeadLetter:
    """Return the letter whose message id, original id or `event_id` header is `wanted`. Raises `NothingMatchedError`.

    `limit` bounds one browse, `timeout_s` all of them.
    """
    deadline = time.monotonic() + timeout_s
    browse = broker.browse(queue, limit=limit, timeout_s=timeout_s)
    rounds = 0 if browse.complete else (browse.depth or 0) // _FURTHER_EACH_TIME + 1
    selector = _selector(wanted)
    found = _among(browse, wanted)
    while found is None and rounds and (left := deadline - time.monotonic()) > 0:
        found = _among(broker.browse(queue, limit=1, timeout_s=left, selector=selector), wanted)
        rounds -= 1
    if found is None:
        raise NothingMatchedError(f"{queue} shows no message with the id {wanted}", advice=_advice(browse))
    return found


def _among(browse: Browse, wanted: str) -> DeadLetter | None:
    selection = Selection(ids=frozenset({wanted}))
    return next(filter(selection.matches, map(letters.read, browse.messages)), None)


def _selector(wanted: str) -> str:
    text = "'" + wanted.replace("'", "''") + "'"
    return " OR ".join(f"{name} = {text}" for name in ("JMSMessageID", "original_message_id", "event_id"))


def _advice(browse: Browse) -> str:
    return "" if browse.complete else "it may stand further back than the broker shows: replay-dlq --id sees all"
