"""Messages between AMQP's properties and ours.

AMQP does not say whether a body is text. It is text if its content type says so (`text/…`, JSON, XML, or any with a
charset), bytes if there is another content type, and without one text if it is UTF-8. Where that would be wrong, what
we send has the header `amq-msg-type`, as over STOMP.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import time
import uuid
from collections.abc import Mapping
from typing import Final

import msgspec

from infertool.brokers.amqp import deaths, properties
from infertool.brokers.amqp.conventions import CONVENTIONS
from infertool.brokers.amqp.frames import FRAME_MAX
from infertool.brokers.amqp.properties import PERSISTENT, Fields
from infertool.brokers.amqp.tables import Table, TableError
from infertool.brokers.body_kind import BYTES, concluded
from infertool.brokers.header_types import HeaderTypeError, from_texts, to_texts
from infertool.errors import RefusedError
from infertool.message import NO_TYPES, BodyKind, Message, Outgoing, Properties, TypedMessage

_log = logging.getLogger(__name__)

# Says whether a body is text or bytes, where nothing else does.
KIND: Final = "amq-msg-type"
# Quorum queues write it from the second delivery on.
_COUNT: Final = "x-delivery-count"
# Lists by which RabbitMQ copies a message to further queues.
ROUTING: Final = frozenset({"CC", "BCC"})
_KINDS: Final = frozenset({"text", "bytes"})
# A message of a producer that writes milliseconds: as seconds it would be of a year after 5000.
_MILLISECONDS: Final = 100_000_000_000
# Where the properties begin in a header frame: after class, weight and the body's size.
_AT: Final = 12
# What a header frame has beside the properties, and some more.
_FRAME_BYTES: Final = 64


def to_message(head: bytes, body: bytes, source: str, epoch: int, token: str, *, redelivered: bool) -> Message:
    """Return the message of a header frame's payload and a body.

    Properties that cannot be read are left out, and the message must not be settled.
    """
    try:
        fields = properties.decode(head, _AT)
        headers = fields.headers
        texts, types = to_texts(headers) if headers else ({}, NO_TYPES)
    except (TableError, HeaderTypeError) as fault:
        return _unreadable(head, body, source, epoch, token, fault, redelivered=redelivered)
    # Classic queues do not count: of a first delivery it is known.
    count = None if redelivered else 0
    kind, death = None, None
    if headers:
        count = _taken_count(headers, texts, types, count)
        kind = _taken_kind(texts, types)
        death = deaths.of(headers)
    return TypedMessage(
        id=fields.message_id or _digest(fields, body),
        source=source,
        native=texts,
        body=body,
        kind=kind or concluded(fields.content_type, body),
        redelivered=redelivered,
        epoch=epoch,
        token=token,
        known=_properties(fields, count),
        header_types=types,
        broker_death=death,
    )


def _taken_count(headers: Table, texts: dict[str, str], types: Mapping[str, str], otherwise: int | None) -> int | None:
    count = headers.get(_COUNT)
    if type(count) is not int or count < 0:
        return otherwise
    del headers[_COUNT], texts[_COUNT]
    if isinstance(types, dict):
        types.pop(_COUNT, None)
    return count


def _taken_kind(texts: dict[str, str], types: Mapping[str, str]) -> BodyKind | None:
    return BodyKind(texts.pop(KIND)) if texts.get(KIND) in _KINDS and KIND not in types else None


def _unreadable(
    head: bytes, body: bytes, source: str, epoch: int, token: str, fault: Exception, *, redelivered: bool
) -> Message:
    message_id = f"sha-{hashlib.sha256(head + body).hexdigest()[:40]}"
    _log.warning("a message of %s has properties that cannot be read (%s); it is left unsettled", source, fault)
    return TypedMessage(message_id, source, {}, body, BYTES, redelivered, epoch, token, hides_body=True)


def _digest(fields: Fields, body: bytes) -> str:
    """Return an id for a message without one: two that are equal in everything count as one event."""
    digest = hashlib.sha256(repr(msgspec.structs.replace(fields, headers=fields.headers or None)).encode())
    digest.update(body)
    return f"sha-{digest.hexdigest()[:40]}"


def _properties(fields: Fields, count: int | None) -> Properties:
    stamp, expiration = fields.timestamp, fields.expiration
    if stamp is not None and stamp < _MILLISECONDS:
        stamp *= 1000
    return Properties(
        correlation_id=fields.correlation_id,
        reply_to=fields.reply_to,
        content_type=fields.content_type,
        content_encoding=fields.content_encoding,
        type=fields.type,
        message_id=fields.message_id,
        priority=fields.priority,
        timestamp_ms=stamp,
        ttl_ms=int(expiration) if expiration and expiration.isascii() and expiration.isdigit() else None,
        persistent=fields.delivery_mode == PERSISTENT,
        delivery_count=count,
    )


def to_fields(outgoing: Outgoing, address: str) -> Fields:
    """Return the properties of a message to send. Raises RefusedError for headers that AMQP cannot hold.

    It gets an id and a time if it has none.
    """
    try:
        headers = from_texts(outgoing.headers, _kept_types(outgoing) if outgoing.types else NO_TYPES)
    except HeaderTypeError as fault:
        raise _refused(address, fault.what) from None
    for name in ROUTING:
        if name in headers:
            raise _refused(address, f"RabbitMQ would copy it to the queues in its header {name}")
    if concluded(outgoing.properties.content_type, outgoing.body) is not outgoing.kind:
        headers[KIND] = outgoing.kind.value
    known = outgoing.properties
    stamp_ms = known.timestamp_ms
    return Fields(
        content_type=known.content_type,
        content_encoding=known.content_encoding,
        headers=headers,
        delivery_mode=PERSISTENT if known.persistent else 1,
        priority=known.priority,
        correlation_id=known.correlation_id,
        reply_to=known.reply_to,
        expiration=_expiration(known),
        message_id=known.message_id or _ids.next(),
        timestamp=int(time.time()) if stamp_ms is None else _stamp(stamp_ms),
        type=known.type,
    )


def _kept_types(outgoing: Outgoing) -> dict[str, str]:
    texts = outgoing.headers
    return {name: tag for name, tag in outgoing.types.items() if CONVENTIONS.keeps_type(texts[name], tag)}


class _Ids:
    """Ids that no other message has: those of a process begin alike. `uuid4` asks the system for each."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.renew()
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self._prefix = f"{uuid.uuid4().hex}-"

    def next(self) -> str:
        return f"{self._prefix}{next(self._numbers):x}"


_ids: Final = _Ids()


def _stamp(stamp_ms: int) -> int:
    """Return a time as it stands on a message. One that would be read as milliseconds came as such."""
    seconds = stamp_ms // 1000
    return max(0, seconds) if seconds < _MILLISECONDS else stamp_ms


def _expiration(known: Properties) -> str | None:
    if known.expires_ms is not None:
        return str(max(0, known.expires_ms - time.time_ns() // 1_000_000))
    return None if known.ttl_ms is None else str(known.ttl_ms)


def encoded(fields: Fields, address: str, frame_max: int = FRAME_MAX) -> bytes:
    """Return the properties as bytes. Raises RefusedError for what AMQP cannot hold: all must fit one frame."""
    try:
        data = properties.encode(fields)
    except TableError as fault:
        raise _refused(address, str(fault)) from None
    if len(data) > (most := frame_max - _FRAME_BYTES):
        raise _refused(address, f"its headers have {len(data)} bytes, {most} are possible")
    return data


def _refused(address: str, reason: str) -> RefusedError:
    return RefusedError(f"a message cannot be sent to {address}: {reason}", address=address, reason=reason)
