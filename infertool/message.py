"""What travels: messages in, messages out. Nothing here knows a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from zlib import crc32

from msgspec import Struct

# Queue, message id, the time it was sent, and its body or a sum over that. See `Message.identity`.
Identity = tuple[str, str, str, bytes | int]

# Bytes. A sum takes longer than all else of an identity; a body of this size can be remembered instead.
_SHORT_BODY: Final = 1024


class BodyKind(StrEnum):
    """The JMS type of a body. A replay must keep it: a Java consumer casts to TextMessage or BytesMessage."""

    TEXT = "text"
    BYTES = "bytes"


# A Struct, as all that is made once an event: a tenth of a frozen dataclass's cost. None of them is ever part of a
# cycle, so the garbage collector need not walk them.
class Message(Struct, frozen=True, gc=False):
    """One delivery of an event by a broker.

    `id` is the broker's message id and stays the same over redeliveries; other events may have the same, see
    `identity`. `headers` are the producer's and the broker's, unescaped, first of duplicates wins. `epoch` numbers the
    connection that delivered it, the only one that can settle it; `token` is for the adapter. With `hides_body` it may
    have content that did not come with it: it must not be settled, which would destroy that.
    """

    id: str
    source: str
    headers: Mapping[str, str]
    body: bytes
    kind: BodyKind
    redelivered: bool
    epoch: int
    token: str
    hides_body: bool = False

    @property
    def identity(self) -> Identity:
        """What each delivery of this event has in common, and other events have not.

        An id alone does not tell: a composite SEND puts one message into several queues, a JMS property `message-id`
        gives one id to many messages, and the next broker of a failover counts its own.
        """
        body = self.body if len(self.body) <= _SHORT_BODY else crc32(self.body)
        return self.source, self.id, self.headers.get("timestamp", ""), body


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send. `headers` are the user's and JMS ones (`correlation-id`, `priority`, ...), in order."""

    destination: str
    body: bytes
    kind: BodyKind = BodyKind.TEXT
    headers: Mapping[str, str] = field(default_factory=dict)
    persistent: bool = True
