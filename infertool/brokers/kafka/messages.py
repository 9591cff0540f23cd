"""Messages between Kafka's records and ours.

A record's headers are a list of names with bytes or nothing: bytes that are no UTF-8 have the type `bytes`, nothing has
`null`. Types that records do not have stand in a header of their own, so that they come back. Where a record's headers
would come out otherwise than they came (a name stands twice, or before another), `kafka_headers` has all of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infertool.brokers.body_kind import TEXT, concluded
from infertool.brokers.header_types import BOOL, BYTES, JSON, HeaderTypeError, from_text, to_text
from infertool.brokers.kafka import deaths
from infertool.brokers.kafka.conventions import (
    ALL_HEADERS,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    CORRELATION_ID,
    KEY,
    KIND,
    KINDS,
    MESSAGE_ID,
    PARTITION_BYTES,
    REPLY_PARTITION,
    REPLY_TOPIC,
    TOMBSTONE,
    TYPE,
    TYPES,
    is_name,
    split_address,
)
from infertool.brokers.kafka.header_values import (
    Pair,
    correlation,
    correlation_bytes,
    first_of_each,
    read,
    shown,
    text_of,
    value_of,
    written,
)
from infertool.errors import RefusedError
from infertool.message import NO_TYPES, BodyKind, BrokerDeath, Message, Outgoing, Properties
from infertool.text.sanitize import wire_bytes

_log = logging.getLogger(__name__)

# Not headers of the record, whose own headers of these names are in `kafka_headers` only.
_SPECIAL: Final = frozenset({KEY, TOMBSTONE, ALL_HEADERS})
_TEXTS: Final = {
    CONTENT_TYPE: "content_type", CONTENT_ENCODING: "content_encoding", TYPE: "type", MESSAGE_ID: "message_id",
}  # fmt: skip
_SHOWN: Final = 40
# Bytes of memory: of a message with nothing in it, and of a header without a value.
_OBJECTS: Final = 600
_A_HEADER: Final = 250
# The last time that a record can have, in milliseconds since the epoch.
_LATEST_MS: Final = 2**63 - 1


class KafkaMessage(Message, frozen=True, gc=False):
    """A record of a topic. `pairs` are its headers as they came, `memory` is about what it takes, in bytes."""

    offset: int = 0
    key: bytes | None = None
    timestamp_ms: int | None = None
    is_tombstone: bool = False
    pairs: Sequence[Pair] = ()
    memory: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """See `Message`."""
        return self._split()[0]

    @property
    def types(self) -> Mapping[str, str]:
        """See `Message`."""
        return self._split()[1]

    @property
    def properties(self) -> Properties:
        """See `Message`."""
        return _properties(first_of_each(self.pairs), self.timestamp_ms)

    @property
    def correlation_id(self) -> str | None:
        """See `Message`."""
        return correlation(value_of(self.pairs, CORRELATION_ID)) if CORRELATION_ID in self.native else None

    @property
    def coding(self) -> tuple[str | None, str | None]:
        """See `Message`."""
        return self._told(CONTENT_TYPE), self._told(CONTENT_ENCODING)

    def _told(self, name: str) -> str | None:
        return text_of(value_of(self.pairs, name)) if name in self.native else None

    @property
    def death(self) -> BrokerDeath | None:
        """See `Message`."""
        return deaths.of(self.pairs, self.timestamp_ms)

    @property
    def hides_types(self) -> bool:
        """See `Message`."""
        return False

    def _split(self) -> tuple[dict[str, str], Mapping[str, str]]:
        """Return the headers, with what a record has beside its headers, and their types."""
        first = first_of_each(self.pairs)
        of_properties = _taken(first)
        types = _told_types(first)
        texts: dict[str, str] = {}
        tags: dict[str, str] = {}
        for name, value in first.items():
            if name in of_properties or name in _SPECIAL:
                continue
            texts[name], tag = to_text(value) if types.get(name) == BYTES else read(value)
            if tag := tag or types.get(name, ""):
                tags[name] = tag
        known = [] if self.key is None else [(KEY, *read(self.key))]
        if self.is_tombstone:
            known.append((TOMBSTONE, *to_text(True)))  # noqa: FBT003  # a value
        for name, text, tag in known:
            texts[name] = text
            if tag:
                tags[name] = tag
        sent = Outgoing("", self.body, self.kind, texts, _properties(first, None), tags)
        if _pairs(sent, ()) != list(self.pairs):
            texts[ALL_HEADERS], tags[ALL_HEADERS] = to_text([[name, shown(value)] for name, value in self.pairs])
        return texts, tags or NO_TYPES


def to_message(record: Any, *, partition: str, epoch: int, redelivered: bool) -> KafkaMessage:
    """Return the message of a `confluent_kafka.Message`. `partition` is `TOPIC/NUMBER`."""
    offset = record.offset()
    (message,) = to_messages([record], [offset], partition=partition, epoch=epoch, before=offset + redelivered)
    return message


def to_messages(
    records: Sequence[Any], offsets: Sequence[int], *, partition: str, epoch: int, before: int
) -> list[KafkaMessage]:
    """Return the messages of records of one partition, at `offsets`; those below `before` are redelivered.

    One pass with few calls: it is most of what an event costs here.
    """
    topic = records[0].topic() if records else ""
    messages: list[KafkaMessage] = []
    for record, offset in zip(records, offsets, strict=True):
        number = str(offset)
        name = f"{partition}/{number}"
        value: bytes | None = record.value()
        body = value or b""
        native: dict[str, str] = {}
        try:
            pairs: Sequence[Pair] = record.headers() or ()
            for header, data in pairs:
                native[header] = data.decode()  # type: ignore[union-attr]
        except (AttributeError, UnicodeDecodeError):  # nothing, or bytes
            pairs, native = _odd_headers(record, name)
        if len(native) < len(pairs):
            native = _first_texts(pairs)
        if KIND in native or CONTENT_TYPE in native:
            kind = _told_kind(pairs, body)
        else:
            kind = TEXT if body.isascii() else concluded(None, body)
        key: bytes | None = record.key()
        memory = _OBJECTS + len(body) + len(key or b"")
        if pairs:
            memory += _memory(pairs)
        # A producer may give no time: -1.
        how, stamp_ms = record.timestamp()
        messages.append(
            KafkaMessage(
                name,
                topic,
                native,
                body,
                kind,
                offset < before,
                epoch,
                number,
                False,  # noqa: FBT003  # `hides_body`; names take as long as all the rest
                partition,
                offset,
                key,
                stamp_ms if how and stamp_ms > 0 else None,
                value is None,
                pairs,
                memory,
            )
        )
    return messages


def _memory(pairs: Sequence[Pair]) -> int:
    """Return what headers take: they are kept as they came, and as texts."""
    return sum(_A_HEADER + len(name) + 2 * len(value or b"") for name, value in pairs)


def _odd_headers(record: Any, name: str) -> tuple[Sequence[Pair], dict[str, str]]:
    """Return headers of which some are no texts: as they came, and as texts."""
    pairs: Sequence[Pair] = ()
    try:
        pairs = record.headers() or ()
    except UnicodeDecodeError:
        _log.warning("the headers of %s have a name that is no UTF-8: the event comes without them", name)
    return pairs, _first_texts(pairs)


def _first_texts(pairs: Sequence[Pair]) -> dict[str, str]:
    return {name: read(data)[0] for name, data in first_of_each(pairs).items()}


def _told_kind(pairs: Sequence[Pair], body: bytes) -> BodyKind:
    # Not of the texts: those of bytes may be one of the kinds.
    kind = KINDS.get(value_of(pairs, KIND) or b"")
    return kind or concluded(text_of(value_of(pairs, CONTENT_TYPE)), body)


@dataclass(frozen=True, slots=True)
class Record:
    """What a producer sends. Without a `partition` its own partitioner chooses one; without a time it is now."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: list[Pair]
    timestamp_ms: int | None


def to_record(outgoing: Outgoing, address: str) -> Record:
    """Return what is sent for a message. Raises RefusedError for headers that are not of their types."""
    topic, partition = split_address(outgoing.destination)
    headers, types = outgoing.headers, outgoing.types
    try:
        key = written(headers[KEY], types.get(KEY, "")) if KEY in headers else None
        is_tombstone = TOMBSTONE in headers and from_text(headers[TOMBSTONE], types.get(TOMBSTONE, BOOL)) is True
        original = _original(headers)
        pairs = _pairs(outgoing, original)
    except HeaderTypeError as fault:
        raise _refused(address, fault.what) from None
    for name in (topic, *(name for name, _ in pairs)):
        if not is_name(name):
            raise _refused(address, f"the name {name[:_SHOWN]!r} is no UTF-8, or holds a NUL")
    stamp_ms = outgoing.properties.timestamp_ms
    return Record(
        topic,
        partition,
        key,
        None if is_tombstone and not outgoing.body else outgoing.body,
        pairs,
        stamp_ms if stamp_ms is not None and 0 <= stamp_ms <= _LATEST_MS else None,
    )


def _refused(address: str, reason: str) -> RefusedError:
    return RefusedError(f"a message cannot be sent to {address}: {reason}", address=address, reason=reason)


def _taken(first: Mapping[str, bytes | None]) -> frozenset[str]:
    """Return the names of the headers that are properties, or say how the others are to be read."""
    names = {name for name in _TEXTS if text_of(first.get(name)) is not None}
    if first.get(CORRELATION_ID) is not None:
        names.add(CORRELATION_ID)
    reply_to = _reply_to(first)
    if reply_to is not None:
        names.add(REPLY_TOPIC)
        if split_address(reply_to)[1] is not None:
            names.add(REPLY_PARTITION)
    if first.get(KIND) in KINDS:
        names.add(KIND)
    if _told_types(first):
        names.add(TYPES)
    return frozenset(names)


def _told_types(first: Mapping[str, bytes | None]) -> dict[str, str]:
    """Return the types of headers that a sender of ours wrote, as far as they are true."""
    tags = _tags(first.get(TYPES) or b"{}")
    try:
        for name, tag in tags.items():
            value = first[name]
            if value is None:
                return {}
            if tag != BYTES:
                from_text(str(text_of(value)), tag)
    except (KeyError, TypeError, HeaderTypeError):
        return {}
    return tags


def _tags(told: bytes) -> dict[str, str]:
    try:
        tags = json.loads(told)
    except (ValueError, RecursionError):
        return {}
    return tags if isinstance(tags, dict) else {}


def _properties(first: Mapping[str, bytes | None], stamp_ms: int | None) -> Properties:
    values: dict[str, Any] = {field: text_of(first.get(name)) for name, field in _TEXTS.items()}
    return Properties(
        correlation_id=correlation(first.get(CORRELATION_ID)),
        reply_to=_reply_to(first),
        timestamp_ms=stamp_ms,
        **values,
    )


def _reply_to(first: Mapping[str, bytes | None]) -> str | None:
    """Return the address for replies, or None where the headers would not come out of it as they are."""
    topic = text_of(first.get(REPLY_TOPIC))
    if topic is None or split_address(topic)[1] is not None:
        return None
    number = first.get(REPLY_PARTITION) or b""
    address = f"{topic}/{int.from_bytes(number, 'big')}"
    return address if len(number) == PARTITION_BYTES and split_address(address)[1] is not None else topic


def _pairs(outgoing: Outgoing, original: Sequence[Pair]) -> list[Pair]:
    """Return the headers of a record. Those that were on the `original`, and are unchanged, come out as there."""
    wanted = _own(outgoing)
    _add_properties(wanted, outgoing)
    if not original:
        return list(wanted.items())
    pairs: list[Pair] = []
    same: dict[str, bool] = {}
    for name, value in original:
        if name in _SPECIAL or same.get(name):
            pairs.append((name, value))
        elif name not in wanted and name not in same and _needless(name, value, outgoing):
            same[name] = True
            pairs.append((name, value))
        elif name in wanted and name not in same:
            same[name] = wanted[name] == value
            pairs.append((name, wanted[name]))
    return [*pairs, *((name, value) for name, value in wanted.items() if name not in same)]


def _needless(name: str, value: bytes | None, outgoing: Outgoing) -> bool:
    """Return True for a header that only says what is known without it."""
    if name == KIND:
        return value == outgoing.kind.value.encode()
    if name != TYPES or value is None:
        return False
    return all(outgoing.types.get(each) == tag for each, tag in _tags(value).items())


def _own(outgoing: Outgoing) -> dict[str, bytes | None]:
    types = outgoing.types
    if not types:
        return {name: wire_bytes(text) for name, text in outgoing.headers.items() if name not in _SPECIAL}
    return {name: written(text, types.get(name, "")) for name, text in outgoing.headers.items() if name not in _SPECIAL}


def _add_properties(pairs: dict[str, bytes | None], outgoing: Outgoing) -> None:
    known = outgoing.properties
    for name, field in _TEXTS.items():
        if (text := getattr(known, field)) is not None:
            pairs[name] = text.encode("utf-8", "replace")
    if known.correlation_id is not None:
        pairs[CORRELATION_ID] = correlation_bytes(known.correlation_id)
    if known.reply_to is not None:
        topic, partition = split_address(known.reply_to)
        pairs[REPLY_TOPIC] = topic.encode("utf-8", "replace")
        if partition is not None:
            pairs[REPLY_PARTITION] = partition.to_bytes(PARTITION_BYTES, "big")
    if concluded(known.content_type, outgoing.body) is not outgoing.kind:
        pairs[KIND] = outgoing.kind.value.encode()
    types = {name: tag for name, tag in outgoing.types.items() if tag and name in pairs}
    if told := {name: tag for name, tag in types.items() if read(pairs[name])[1] != tag}:
        pairs[TYPES] = json.dumps(told, separators=(",", ":")).encode()


def _original(headers: Mapping[str, str]) -> list[Pair]:
    """Return the headers that `kafka_headers` lists. Raises HeaderTypeError."""
    if ALL_HEADERS not in headers:
        return []
    pairs: list[Pair] = []
    for pair in from_text(headers[ALL_HEADERS], JSON):
        match pair:
            case [str() as name, str() as text]:
                pairs.append((name, text.encode("utf-8", "replace")))
            case [str() as name, bytes() | None as value]:
                pairs.append((name, value))
            case _:
                raise HeaderTypeError(f"header {ALL_HEADERS}: no list of names with values", tag=JSON)
    return pairs
