"""Which headers of others can be sent again: ActiveMQ closes the connection over some, and acts upon others.

A JMS producer may give a string property any name and text, and over STOMP it looks like a header of the broker's own.
Measured on ActiveMQ 5.17.2: what `is_refused` names ends the connection without an ERROR.
"""

from __future__ import annotations

import re
import uuid
from typing import Final

from infertool.brokers.body_kind import BYTES, TEXT
from infertool.brokers.headers import FORMS, LONG, PERSISTENT, TextFormMessage, is_property, property_texts
from infertool.brokers.stomp.frames import LIMITS, Frame, encode
from infertool.errors import RefusedError
from infertool.message import BodyKind, Message, Outgoing

# What only the adapter may say in a SEND: taken from an earlier delivery, these would address or settle something else.
SET_BY_ADAPTER: Final = frozenset(
    {
        "destination", "content-length", "amq-msg-type", "persistent", "receipt", "transaction",
        "message-id", "subscription", "ack", "redelivered",
    }
)  # fmt: skip

# What ActiveMQ's STOMP connector ends an id with: session, producer, number.
_STOMP_ID: Final = re.compile(r":-1:\d+:\d+$")
# destination, persistent, content-length, amq-msg-type, transaction, receipt
_MOST_OF_OURS: Final = 6
# A character becomes at most four bytes.
_SURELY_SHORT: Final = LIMITS.header_line // 4 - 10
# Headers beside which those of the properties are within the limit in any case.
_SURELY_FEW: Final = LIMITS.headers // 2


def to_message(frame: Frame, source: str, epoch: int) -> Message:
    """Return the message in a MESSAGE frame. Without a `source`, its headers tell where it comes from."""
    headers = frame.headers
    body = frame.body
    return TextFormMessage(
        # STOMP demands a message-id. For a broker without one each delivery is an event of its own: what else tells
        # deliveries apart (subscription, ack) begins anew with every connection, for other events.
        headers.get("message-id") or str(uuid.uuid4()),
        source or headers.get("destination", ""),
        headers,
        body,
        _kind(headers) if "content-length" in headers else TEXT,
        headers.get("redelivered") == "true",
        epoch,
        headers.get("ack", ""),
        not body and _hides_body(headers),
    )


def _hides_body(headers: dict[str, str]) -> bool:
    """Return True if this message, which came without a body, may have one.

    ActiveMQ shows a JMS MapMessage, ObjectMessage or StreamMessage as it does an empty text. A STOMP client can send
    only bytes and text, unless it asks for a transformation; it has no JMS session, which the id tells (`:-1:`).
    """
    sent_over_stomp = _STOMP_ID.search(headers.get("message-id", "")) and "transformation" not in headers
    return not sent_over_stomp and _kind(headers) is TEXT


def _kind(headers: dict[str, str]) -> BodyKind:
    # ActiveMQ sends a length with BytesMessages only, except where the sender gave a TextMessage one with amq-msg-type:
    # both headers stay on that as properties.
    if "content-length" in headers and headers.get("amq-msg-type") != "text":
        return BYTES
    return TEXT


def to_send(outgoing: Outgoing, extra: dict[str, str]) -> bytes:
    """Return the SEND frame of `outgoing`, with `extra` headers (receipt, transaction)."""
    headers = {key: value for key, value in outgoing.headers.items() if key not in SET_BY_ADAPTER}
    headers |= {"destination": outgoing.destination, **_type_headers(outgoing), **extra}
    return encode("SEND", {**headers, **property_texts(outgoing.properties)}, outgoing.body)


def check_frame(frame: bytes, outgoing: Outgoing, address: str) -> None:
    """Do what `check` does for a message that is encoded, mostly at a glance."""
    size = len(outgoing.body)
    if len(frame) - size > LIMITS.header_line or len(outgoing.headers) > _SURELY_FEW or size > LIMITS.body:
        check(outgoing, address)


def check(outgoing: Outgoing, address: str) -> None:
    """Raise RefusedError for what breaks the wire format's limits.

    The broker would close the connection without a word, and every later one that tries to send it again.
    """
    properties = property_texts(outgoing.properties)
    for name, value in (*outgoing.headers.items(), *properties.items()):
        if len(name) + len(value) > _SURELY_SHORT and _line_bytes(name, value) > LIMITS.header_line:
            raise _too_large(address, f"its header {name[:40]} has more than {LIMITS.header_line} bytes")
    count = len(outgoing.headers) + len(properties.keys() - outgoing.headers.keys() - {PERSISTENT})
    if count + _MOST_OF_OURS > LIMITS.headers:
        raise _too_large(address, f"it has {count} headers, {LIMITS.headers - _MOST_OF_OURS} are possible")
    if len(outgoing.body) > LIMITS.body:
        raise _too_large(address, f"its body has more than {LIMITS.body} bytes")


def _line_bytes(name: str, value: str) -> int:
    return len(encode("", {name: value}).removeprefix(b"\n").removesuffix(b"\n\n\0"))


def _too_large(address: str, reason: str) -> RefusedError:
    return RefusedError(f"a message cannot be sent to {address}: {reason}", address=address, reason=reason)


def _type_headers(outgoing: Outgoing) -> dict[str, str]:
    """Return what makes ActiveMQ build the right JMS type: a length means BytesMessage, none TextMessage."""
    length = {"content-length": str(len(outgoing.body))}
    if outgoing.kind is BYTES:
        return length
    # Without a length a body ends at its first NUL.
    return {**length, "amq-msg-type": "text"} if b"\0" in outgoing.body else {}


_INT: Final = re.compile(r"0|-?[1-9][0-9]{0,8}")
_FORMS: Final = {
    **FORMS,
    # `/reply-queue/` is RabbitMQ's alone.
    "reply-to": re.compile(f"(?!/reply-queue/)(?:{FORMS['reply-to'].pattern})"),
    "JMSXGroupSeq": _INT,
    "JMSXDeliveryCount": _INT,
    "JMSDeliveryMode": re.compile(r"[12]|(NON_)?PERSISTENT"),
    "JMSExpiration": LONG,
    "JMSPriority": re.compile(r"[0-9]"),
    "JMSTimestamp": LONG,
    "AMQ_SCHEDULED_DELAY": LONG,
    "AMQ_SCHEDULED_PERIOD": LONG,
    "AMQ_SCHEDULED_REPEAT": _INT,
    "AMQ_SCHEDULED_CRON": re.compile(r"(\S+ ){4}\S+"),
    "": re.compile(r"(?!)"),
}
_SCHEDULES: Final = "AMQ_SCHEDULE"
# What addresses, settles, converts, expires or dates a message in a SEND.
_ACTING: Final = frozenset({
    "destination", "message-id", "subscription", "ack", "redelivered", "content-length", "amq-msg-type", "persistent",
    "transaction", "receipt", "transformation", "scheduledJobId", "JMSXDeliveryCount", "JMSXUserID",
    "JMSDeliveryMode", "JMSExpiration", "JMSPriority", "JMSTimestamp", "JMSReplyTo", "JMSRedelivered",
    "JMSCorrelationID", "JMSType",
})  # fmt: skip


def is_refused(name: str, value: str) -> bool:
    """Return True if ActiveMQ would close the connection over this header of a SEND, or change its value."""
    form = _FORMS.get(name)
    return form is not None and form.fullmatch(value) is None


def is_sendable(name: str, value: str) -> bool:
    """Return True if this header comes out of a SEND as it went in, and makes the broker do nothing unasked-for.

    One that another broker delivered beside the properties, such as `type`, would become the property. JMSXGroupID is
    meant to be sent again.
    """
    acts = name in _ACTING or name.startswith(_SCHEDULES) or is_property(name, value)
    return not (acts or is_refused(name, value))
