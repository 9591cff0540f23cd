"""The text form of a message's properties and headers: one mapping of names to texts.

Commands show it, archives of STOMP's messages hold it, and STOMP's frames are in it already. The names of the
properties are `correlation-id`, `reply-to`, `content-type`, `content-encoding`, `type`, `priority`, `timestamp`,
`expires` and `persistent`; of those that only AMQP has, `amqp-message-id` (the producer's id: `message-id` is the
broker's) and `amqp-expiration` (milliseconds from now: JMS producers have headers called `ttl` and `expiration`). A
producer may give a header of its own such a name, so a value that cannot be the property's makes it a header.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from operator import attrgetter
from typing import Any, Final
from zlib import crc32

import msgspec

from infertool.brokers.port import Conventions
from infertool.errors import UsageError
from infertool.message import NO_CODING, SHORT_BODY, BodyKind, BrokerDeath, Identity, Message, Outgoing, Properties

CORRELATION_ID, PRIORITY, PERSISTENT = "correlation-id", "priority", "persistent"
MESSAGE_ID, TTL = "amqp-message-id", "amqp-expiration"
_TEXTS: Final = {
    CORRELATION_ID: "correlation_id", "reply-to": "reply_to", "content-type": "content_type",
    "content-encoding": "content_encoding", "type": "type", MESSAGE_ID: "message_id",
}  # fmt: skip
_NUMBERS: Final = {PRIORITY: "priority", "timestamp": "timestamp_ms", "expires": "expires_ms", TTL: "ttl_ms"}
_FIELDS: Final = (*_TEXTS, *_NUMBERS)
_VALUES: Final = attrgetter(*_TEXTS.values(), *_NUMBERS.values())
NAMES: Final = frozenset({*_TEXTS, *_NUMBERS, PERSISTENT})

# A number in its one spelling: what Java reads from another one would come out changed.
LONG: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
# What ActiveMQ takes in a SEND.
FORMS: Final[Mapping[str, re.Pattern[str]]] = {
    PRIORITY: re.compile(r"[0-9]"),
    "expires": LONG,
    "timestamp": LONG,
    # A name of nothing is refused; lists, options and `/temp-queue/` come out as something else.
    "reply-to": re.compile(
        r"/(queue|topic|reply-queue|remote-temp-queue|remote-temp-topic)/[^\s,?]+|(?![\s/])[^,?]*(?<!\s)|"
    ),
}
_PROPERTY_FORMS: Final = {**FORMS, TTL: re.compile(r"0|[1-9][0-9]{0,17}")}

_BOOLEANS: Final = frozenset({"true", "false"})
_KINDS: Final = frozenset({"text", "bytes"})

# What differs from one delivery of a message to the next, or stands beside the headers.
_PASSING: Final = frozenset({
    "message-id", "destination", "subscription", "ack", "redelivered", "receipt", "transaction", "content-length",
})  # fmt: skip

# What ActiveMQ writes when it dead-letters.
_ORIGIN, _CAUSE = "original-destination", "dlqDeliveryFailureCause"
DEATH_MARKS: Final = frozenset({_ORIGIN, "originalExpiration", _CAUSE})
_ALWAYS_WRITTEN: Final = frozenset({_ORIGIN, "originalExpiration"})


def text(message: Message | Outgoing) -> Mapping[str, str]:
    """Return properties and headers in the text form. What a broker delivered in it comes back as it is."""
    if isinstance(message, TextFormMessage):
        return message.native
    return {**property_texts(message.properties), **message.headers}


def property_texts(properties: Properties) -> dict[str, str]:
    """Return the properties that are known in the text form."""
    texts: dict[str, str] = {}
    for name, value in zip(_FIELDS, _VALUES(properties), strict=True):
        if value is not None:
            texts[name] = str(value)
    if properties.persistent:
        texts[PERSISTENT] = "true"
    return texts


def lasting(message: Message) -> list[tuple[str, str]]:
    """Return the text form, sorted, and the types, without what differs from one delivery of a message to the next."""
    if isinstance(message, TextFormMessage):
        return sorted((name, value) for name, value in message.native.items() if name not in _PASSING)
    properties = sorted(property_texts(message.properties).items())
    return [*properties, *sorted(message.headers.items()), *sorted(message.types.items())]


def without(properties: Properties, names: frozenset[str]) -> Properties:
    """Return `properties` without those of these names."""
    fields = {**_TEXTS, **_NUMBERS}
    return msgspec.structs.replace(properties, **{fields[name]: None for name in names if name in fields})


def split(texts: Mapping[str, str]) -> tuple[dict[str, str], Properties]:
    """Return the headers and the properties of a text form."""
    headers = {name: value for name, value in texts.items() if not is_property(name, value)}
    return headers, _properties(texts)


def from_options(
    texts: Iterable[str], conventions: Conventions, taken: Container[str], taken_by: str
) -> dict[str, str]:
    """Return the headers of `--header NAME=VALUE`. `taken_by` sets those that are `taken`. Raises `UsageError`."""
    headers: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--header {text!r} is no header", advice="write NAME=VALUE")
        if name in taken or name in conventions.set_by_adapter:
            raise UsageError(f"--header {name} is set by {taken_by} itself", advice="leave it out")
        if conventions.is_refused(name, value):
            raise UsageError(f"--header {text!r}: the broker closes the connection over it", advice="use another name")
        if name in headers:
            raise UsageError(f"--header gives {name} twice", advice="give each name once")
        headers[name] = value
    return headers


def with_texts(template: Outgoing, texts: Mapping[str, str], body: bytes) -> Outgoing:
    """Return `template` with this body, and with the headers and properties of a text form in place of its own."""
    headers, properties = split({**text(template), **texts})
    types = {name: tag for name, tag in template.types.items() if name not in texts}
    return Outgoing(template.destination, body, template.kind, headers, properties, types)


def _properties(texts: Mapping[str, str]) -> Properties:
    values: dict[str, Any] = {}
    for name, field in _TEXTS.items():
        if name in texts and is_property(name, texts[name]):
            values[field] = texts[name]
    for name, field in _NUMBERS.items():
        if name in texts and is_property(name, texts[name]):
            values[field] = int(texts[name])
    if values.get("expires_ms") == 0:
        del values["expires_ms"]
    return Properties(**values, persistent=texts.get(PERSISTENT) == "true")


def is_property(name: str, value: str) -> bool:
    """Return True if a header of this name and value is a property of the message, not the producer's own."""
    if name not in NAMES:
        return False
    if name == PERSISTENT:
        return value in _BOOLEANS
    form = _PROPERTY_FORMS.get(name)
    return form is None or form.fullmatch(value) is not None


class TextFormMessage(Message, frozen=True, gc=False):
    """A message that came in the text form, from a broker or out of an archive."""

    @property
    def properties(self) -> Properties:
        """See `infertool.message.Message`."""
        return _properties(self.native)

    @property
    def headers(self) -> dict[str, str]:
        """See `infertool.message.Message`."""
        return {
            name: value
            for name, value in self.native.items()
            if not (is_property(name, value) or _is_of_delivery(name, value, self.source))
        }

    @property
    def correlation_id(self) -> str | None:
        """See `infertool.message.Message`."""
        return self.native.get(CORRELATION_ID)

    @property
    def coding(self) -> tuple[str | None, str | None]:
        """See `infertool.message.Message`."""
        native = self.native
        if "content-type" in native or "content-encoding" in native:
            return native.get("content-type"), native.get("content-encoding")
        return NO_CODING

    @property
    def death(self) -> BrokerDeath | None:
        """See `infertool.message.Message`."""
        native = self.native
        if DEATH_MARKS.isdisjoint(native):
            return None
        return BrokerDeath(native.get(_ORIGIN, ""), native.get(_CAUSE, ""), complete=native.keys() >= _ALWAYS_WRITTEN)

    @property
    def hides_types(self) -> bool:
        """See `infertool.message.Message`."""
        return True

    @property
    def identity(self) -> Identity:
        """See `infertool.message.Message`. It is asked for once an event."""
        body = self.body
        return self.source, self.id, self.native.get("timestamp", ""), body if len(body) <= SHORT_BODY else crc32(body)


def _is_of_delivery(name: str, value: str, source: str) -> bool:
    """Return True if the broker says this of one delivery. Where it cannot have that value, it is the producer's."""
    match name:
        case "message-id" | "subscription" | "ack":
            return True
        case "destination":
            return value == source
        case "redelivered":
            return value in _BOOLEANS
        case "content-length":
            return value.isascii() and value.isdigit()
        case "amq-msg-type":
            return value in _KINDS
    return False


def archived(message_id: str, source: str, texts: Mapping[str, str], body: bytes, kind: BodyKind) -> Message:
    """Return a message whose properties and headers are in the text form, from an archive: it cannot be settled."""
    return TextFormMessage(message_id, source, texts, body, kind, redelivered=False, epoch=0, token="")
