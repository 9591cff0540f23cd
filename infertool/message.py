"""Messages in and messages out: what every broker has in common. Nothing here knows a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final, Protocol
from zlib import crc32

from msgspec import Struct

# Queue, message id, the time it was sent, and its body or a sum over that. See `Message.identity`.
Identity = tuple[str, str, str, bytes | int]

# Bytes. A sum takes longer than all else of an identity; a body of this size can be remembered instead.
_SHORT_BODY: Final = 1024


class BodyKind(StrEnum):
    """The type of a body. A replay must keep it: a Java consumer casts to TextMessage or BytesMessage."""

    TEXT = "text"
    BYTES = "bytes"


class Properties(Struct, frozen=True, gc=False):
    """What a broker knows of a message beside its headers. None where the broker or the producer does not tell it.

    `timestamp_ms` and `expires_ms` are milliseconds since the epoch. `delivery_count` counts deliveries before this
    one; a message to send has none.
    """

    correlation_id: str | None = None
    reply_to: str | None = None
    content_type: str | None = None
    type: str | None = None
    priority: int | None = None
    timestamp_ms: int | None = None
    expires_ms: int | None = None
    persistent: bool = True
    delivery_count: int | None = None


class BrokerDeath(Struct, frozen=True, gc=False):
    """What a broker wrote on a message that it dead-lettered itself. Texts are empty where it does not tell.

    `complete` is False where some of the broker's marks are missing: a producer may have sent those that are there.
    """

    origin: str
    cause: str
    complete: bool


class HeaderReader(Protocol):
    """Tells properties and the producer's headers apart in what an adapter received. One for many messages."""

    # Whether a message of a type that the adapter cannot read looks like an empty text.
    hides_types: ClassVar[bool]

    def properties(self, message: Message) -> Properties:
        """Return the properties."""

    def headers(self, message: Message) -> dict[str, str]:
        """Return the producer's headers, without what the broker says of the message or of this delivery."""

    def correlation_id(self, message: Message) -> str | None:
        """Return this one property, at less cost than all."""

    def death(self, message: Message) -> BrokerDeath | None:
        """Return what the broker wrote when it dead-lettered the message; None if it did not."""


class SeparateHeaders(Struct, frozen=True, gc=False):
    """The reader for a message whose properties come apart from its headers."""

    hides_types: ClassVar[bool] = False

    known: Properties = Properties()
    broker_death: BrokerDeath | None = None

    def properties(self, message: Message) -> Properties:  # noqa: ARG002  # the same for each
        """See `HeaderReader`."""
        return self.known

    def headers(self, message: Message) -> dict[str, str]:
        """See `HeaderReader`."""
        return dict(message.native)

    def correlation_id(self, message: Message) -> str | None:  # noqa: ARG002  # the same for each
        """See `HeaderReader`."""
        return self.known.correlation_id

    def death(self, message: Message) -> BrokerDeath | None:  # noqa: ARG002  # the same for each
        """See `HeaderReader`."""
        return self.broker_death


# A Struct, as all that is made once an event: a tenth of a frozen dataclass's cost. None of them is ever part of a
# cycle, so the garbage collector need not walk them.
class Message(Struct, frozen=True, gc=False):
    """One delivery of an event by a broker.

    `id` is the broker's message id and stays the same over redeliveries; other events may have the same, see
    `identity`. `native` holds the headers as the adapter received them. A header of the producer's can be looked up
    there by its name, at the least cost; all else is in `headers` and `properties`, which `reader` makes of it.
    `epoch` numbers the connection (or assignment) that delivered the message, the only one that can settle it; `token`
    is for the adapter. With `hides_body` the message may have content that did not come with it: it must not be
    settled, which would destroy that. `sent` is the time it was sent, in the broker's own notation.
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
    sent: str = ""
    reader: HeaderReader = SeparateHeaders()

    @property
    def headers(self) -> dict[str, str]:
        """The producer's headers, unescaped; the first of duplicates. Made anew each time."""
        return self.reader.headers(self)

    @property
    def properties(self) -> Properties:
        """What the broker knows of the message. Made anew each time."""
        return self.reader.properties(self)

    @property
    def correlation_id(self) -> str | None:
        """The correlation id alone: it is asked for once an event."""
        return self.reader.correlation_id(self)

    @property
    def death(self) -> BrokerDeath | None:
        """What the broker wrote on the message when it dead-lettered it; None if it did not."""
        return self.reader.death(self)

    @property
    def identity(self) -> Identity:
        """What each delivery of this event has in common, and other events have not.

        An id alone does not tell: one message may be put into several queues, a producer may give one id to many
        messages, and the next broker of a failover counts its own.
        """
        body = self.body if len(self.body) <= _SHORT_BODY else crc32(self.body)
        return self.source, self.id, self.sent, body


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send."""

    destination: str
    body: bytes
    kind: BodyKind = BodyKind.TEXT
    headers: Mapping[str, str] = field(default_factory=dict)
    properties: Properties = field(default_factory=Properties)
