"""Messages in and messages out: what every broker has in common. Nothing here knows a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from zlib import crc32

from msgspec import Struct

# Queue, message id, the time it was sent, and its body or a sum over that. See `Message.identity`.
Identity = tuple[str, str, str, bytes | int]

NO_TYPES: Final[Mapping[str, str]] = MappingProxyType({})

# Content type and content encoding of a message that tells neither.
NO_CODING: Final = (None, None)

# Bytes. A sum takes longer than all else of an identity; a body of this size can be remembered instead.
SHORT_BODY: Final = 1024


class BodyKind(StrEnum):
    """The type of a body. A replay must keep it: a Java consumer casts to TextMessage or BytesMessage."""

    TEXT = "text"
    BYTES = "bytes"


class Properties(Struct, frozen=True, gc=False):
    """What a broker knows of a message beside its headers. None where the broker or the producer does not tell it.

    `timestamp_ms` and `expires_ms` are milliseconds since the epoch; `ttl_ms` is how long a broker keeps the message
    from its arrival, which is what AMQP tells instead of a time. `message_id` is the producer's own, where a broker
    carries one. `delivery_count` counts deliveries before this one; a message to send has none.
    """

    correlation_id: str | None = None
    reply_to: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    type: str | None = None
    message_id: str | None = None
    priority: int | None = None
    timestamp_ms: int | None = None
    expires_ms: int | None = None
    ttl_ms: int | None = None
    persistent: bool = True
    delivery_count: int | None = None


class BrokerDeath(Struct, frozen=True, gc=False):
    """What a broker wrote on a message that it dead-lettered itself. Texts are empty where it does not tell.

    `complete` is False where some of the broker's marks are missing: a producer may have sent those that are there.
    `at_ms` is the time, in milliseconds since the epoch, where the broker tells it.
    """

    origin: str
    cause: str
    complete: bool
    at_ms: int | None = None


# A Struct, as all that is made once an event: a tenth of a frozen dataclass's cost. None of them is ever part of a
# cycle, so the garbage collector need not walk them.
class Message(Struct, frozen=True, gc=False):
    """One delivery of an event by a broker.

    `id` is the broker's message id and stays the same over redeliveries; other events may have the same, see
    `identity`. `native` holds the headers as the adapter received them. A header of the producer's can be looked up
    there by its name, at the least cost; all else is in `headers` and `properties`, which the adapter's kind of message
    makes of it. `epoch` numbers the connection (or assignment) that delivered the message, the only one that can settle
    it; `token` is for the adapter. With `hides_body` the message may have content that did not come with it: it must
    not be settled, which would destroy that. `partition` names the part of the source whose deliveries `epoch`
    numbers; empty where it numbers those of the whole connection.
    """

    id: str
    source: str
    native: Mapping[str, str]
    body: bytes
    kind: BodyKind
    redelivered: bool
    epoch: int
    token: str
    hides_body: bool = False
    partition: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The producer's headers, without what the broker says of the message; the first of duplicates. Made anew."""
        return dict(self.native)

    @property
    def types(self) -> Mapping[str, str]:
        """The types of those headers that are no texts, by name: see `infertool.brokers.headers`."""
        return NO_TYPES

    @property
    def properties(self) -> Properties:
        """What the broker knows of the message. Made anew each time."""
        return Properties()

    @property
    def correlation_id(self) -> str | None:
        """The correlation id alone: it is asked for once an event."""
        return self.properties.correlation_id

    @property
    def coding(self) -> tuple[str | None, str | None]:
        """The content type and the content encoding alone: they are asked for once an event."""
        properties = self.properties
        return properties.content_type, properties.content_encoding

    @property
    def timestamp_ms(self) -> int | None:
        """The time of sending alone: it is asked for once an event."""
        return self.properties.timestamp_ms

    @property
    def death(self) -> BrokerDeath | None:
        """What the broker wrote on the message when it dead-lettered it; None if it did not."""
        return None

    @property
    def hides_types(self) -> bool:
        """Whether a message of a type that the adapter cannot read would look like an empty text."""
        return False

    @property
    def identity(self) -> Identity:
        """What each delivery of this event has in common, and other events have not.

        An id alone does not tell: one message may be put into several queues, a producer may give one id to many
        messages, and the next broker of a failover counts its own.
        """
        body = self.body if len(self.body) <= SHORT_BODY else crc32(self.body)
        return self.source, self.id, str(self.timestamp_ms or ""), body


class TypedMessage(Message, frozen=True, gc=False):
    """A message whose properties come apart from its headers, which are in `native`."""

    known: Properties = Properties()
    header_types: Mapping[str, str] = NO_TYPES
    broker_death: BrokerDeath | None = None

    @property
    def types(self) -> Mapping[str, str]:
        """See `Message`."""
        return self.header_types

    @property
    def properties(self) -> Properties:
        """See `Message`."""
        return self.known

    @property
    def death(self) -> BrokerDeath | None:
        """See `Message`."""
        return self.broker_death


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send. `types` names the headers that are no texts: see `infertool.brokers.headers`."""

    destination: str
    body: bytes
    kind: BodyKind = BodyKind.TEXT
    headers: Mapping[str, str] = field(default_factory=dict)
    properties: Properties = field(default_factory=Properties)
    types: Mapping[str, str] = field(default_factory=lambda: NO_TYPES)
