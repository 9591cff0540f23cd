"""Between frames and messages: headers, body kind, ids."""

from __future__ import annotations

from typing import Final

from infertool.brokers.stomp.frames import Frame, encode
from infertool.message import BodyKind, Message, Outgoing

# What only the adapter may say in a SEND: taken from an earlier delivery, these would address or settle something else.
_OURS: Final = frozenset(
    {
        "destination", "content-length", "amq-msg-type", "persistent", "receipt", "transaction",
        "message-id", "subscription", "ack", "redelivered",
    }
)  # fmt: skip


def to_message(frame: Frame, queue: str, epoch: int) -> Message:
    """Return the message in a MESSAGE frame."""
    headers = frame.headers
    token = headers.get("ack") or headers.get("message-id", "")
    return Message(
        # STOMP demands a message-id; for a broker without one, subscription and ack tell deliveries apart, though they
        # do not stay the same over redeliveries.
        id=headers.get("message-id") or f"{headers.get('subscription', '')}/{token}",
        source=headers.get("destination", queue),
        headers=headers,
        body=frame.body,
        kind=_kind(headers),
        redelivered=headers.get("redelivered") == "true",
        epoch=epoch,
        token=token,
    )


def _kind(headers: dict[str, str]) -> BodyKind:
    # ActiveMQ sends a length with BytesMessages only, except where the sender gave a TextMessage one with amq-msg-type:
    # both headers stay on that as properties.
    if "content-length" in headers and headers.get("amq-msg-type") != "text":
        return BodyKind.BYTES
    return BodyKind.TEXT


def to_send(outgoing: Outgoing, extra: dict[str, str]) -> bytes:
    """Return the SEND frame of `outgoing`, with `extra` headers (receipt, transaction)."""
    headers = {key: value for key, value in outgoing.headers.items() if key not in _OURS}
    headers |= {"destination": outgoing.destination, **_type_headers(outgoing), **extra}
    if outgoing.persistent:
        headers["persistent"] = "true"
    return encode("SEND", headers, outgoing.body)


def _type_headers(outgoing: Outgoing) -> dict[str, str]:
    """Return what makes ActiveMQ build the right JMS type: a length means BytesMessage, none TextMessage."""
    length = {"content-length": str(len(outgoing.body))}
    if outgoing.kind is BodyKind.BYTES:
        return length
    # Without a length a body ends at its first NUL.
    return {**length, "amq-msg-type": "text"} if b"\0" in outgoing.body else {}
