"""What travels: messages in, messages out. Nothing here knows a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct


class BodyKind(StrEnum):
    """The JMS type of a body. A replay must keep it: a Java consumer casts to TextMessage or BytesMessage."""

    TEXT = "text"
    BYTES = "bytes"


# A Struct, as all that is made once an event: a tenth of a frozen dataclass's cost. None of them is ever part of a
# cycle, so the garbage collector need not walk them.
class Message(Struct, frozen=True, gc=False):
    """One delivery of an event by a broker.

    `id` is the broker's message id and stays the same over redeliveries. `headers` are the producer's and the
    broker's, unescaped, first of duplicates wins. `epoch` and `token` belong to the connection that delivered it:
    only the adapter reads them.
    """

    id: str
    source: str
    headers: Mapping[str, str]
    body: bytes
    kind: BodyKind
    redelivered: bool
    epoch: int
    token: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send. `headers` are the user's and JMS ones (`correlation-id`, `priority`, ...), in order."""

    destination: str
    body: bytes
    kind: BodyKind = BodyKind.TEXT
    headers: Mapping[str, str] = field(default_factory=dict)
    persistent: bool = True
