"""What differs between STOMP brokers: capabilities, names on the wire, headers, ids. Chosen by CONNECTED's `server`.

Each difference was measured against the real server (docs/brokers.md): ActiveMQ 5.17 and 6.3, Artemis 2.40,
RabbitMQ 3.10.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import msgspec

from infertool.brokers.body_kind import BYTES, TEXT
from infertool.brokers.headers import MESSAGE_ID, TTL, TextFormMessage
from infertool.brokers.port import Browsing, Capabilities
from infertool.brokers.stomp import messages
from infertool.brokers.stomp.conventions import ACTIVEMQ as ACTIVEMQ_CAPABILITIES
from infertool.brokers.stomp.conventions import (
    CONVENTIONS,
    PREFIX,
    REMOTE_TEMPORARY,
    REPLY_PREFIXES,
    REPLY_QUEUE,
    StompConventions,
)
from infertool.brokers.stomp.frames import Frame
from infertool.message import BodyKind, Message, Outgoing


class DepthSource(StrEnum):
    """Where a broker tells how many messages a queue holds."""

    NONE = "none"
    # ActiveMQ's statisticsBrokerPlugin: a map in answer to a message to a special queue.
    STATISTICS = "statistics"
    # Artemis's management address.
    MANAGEMENT = "management"


@dataclass(frozen=True, slots=True)
class ReplyPlace:
    """Where one connection gets replies: the `reply-to` of its requests, and how it subscribes.

    `subscription` is empty where the subscription has a name of the adapter's. Without `subscribes` the broker
    subscribes by itself, at the first request with that `reply-to`.
    """

    address: str
    subscription: str = ""
    subscribes: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dialect:
    """One kind of STOMP broker; this class is ActiveMQ Classic, and what is not known to be something else.

    `stamps`: the broker writes the time of arrival on each message. `no_round_trip` is why a connection can send
    nothing to its own place for replies; empty where it can. `depth_advice` makes the broker tell the depth of queues.
    `exclusive` are the SUBSCRIBE headers that keep a queue to one subscription. `patterns`: one subscription may name
    several queues. `errors_end`: an ERROR is the end of the connection, and may name no request. `counts_ends`: an end
    counts as a delivery of all that the connection held, and may cost these messages. `selects_ids`: a selector can
    look for a message by its id. `vhosts`: the broker has virtual hosts. `farewell` is written when the adapter ends a
    connection because of a fault. `remote_replies` is the prefix of the addresses at which replies to others are sent,
    empty where they are names like all others.
    """

    name: str = "ActiveMQ"
    capabilities: Capabilities = ACTIVEMQ_CAPABILITIES
    conventions: StompConventions = CONVENTIONS
    stamps: bool = True
    no_round_trip: str = ""
    depth_advice: str = (
        "enable statisticsBrokerPlugin in activemq.xml, and allow the user to read and write ActiveMQ.Statistics.>"
    )
    exclusive: tuple[tuple[str, str], ...] = (("activemq.exclusive", "true"),)
    patterns: bool = True
    errors_end: bool = False
    counts_ends: bool = False
    selects_ids: bool = True
    vhosts: bool = False
    farewell: bytes = b""
    depth: DepthSource = DepthSource.STATISTICS
    remote_replies: str = REMOTE_TEMPORARY

    def own_replies(self, token: str) -> ReplyPlace:
        """Return a place for replies to this connection.

        ActiveMQ replaces the address in the header `reply-to` by one that other connections can send to.
        """
        return ReplyPlace(f"/temp-queue/infertool-{token}")

    def takes(self, destination: str) -> bool:
        """Return False if `destination` is a reply address of another kind of broker."""
        return not destination.startswith(REPLY_PREFIXES) or (
            self.remote_replies != "" and destination.startswith(self.remote_replies)
        )

    def prefetches(self, window: int, share: int) -> list[dict[str, str]]:
        """Return the SUBSCRIBE headers of the subscriptions that hold `window` messages together, `share` each.

        As few as possible: ActiveMQ's default paging gives one about 200 messages, whatever prefetch it asks for.
        """
        count = math.ceil(window / share)
        sizes = [window // count + (n < window % count) for n in range(count)]
        return [{"activemq.prefetchSize": str(size)} for size in sizes]

    def place(self, queue: str, *, exists: bool = False) -> str:  # noqa: ARG002  # only RabbitMQ declares queues
        """Return the destination of a SUBSCRIBE. With `exists` the queue is one that somebody else declared."""
        return queue

    def send(self, outgoing: Outgoing, extra: dict[str, str]) -> bytes:
        """Return the SEND frame of `outgoing`, with `extra` headers (receipt, transaction)."""
        return messages.to_send(_as_jms(outgoing), extra)

    def bulk_head(self, template: Outgoing, kind: BodyKind) -> bytes:  # noqa: ARG002  # only RabbitMQ is told it
        """Return the SEND frame of what many messages of a `kind` have in common; `template` has no body."""
        return self.send(template, {})

    def message(self, frame: Frame, source: str, epoch: int) -> Message:
        """Return the message in a MESSAGE frame. Without a `source`, its headers tell where it comes from."""
        return messages.to_message(frame, source, epoch)


# `browser:true` is not understood: the messages would be consumed.
_ARTEMIS_CAPABILITIES: Final = replace(
    ACTIVEMQ_CAPABILITIES,
    atomic_move=False, browse=Browsing.NONE, exclusive=False, selector_reach=None,
)  # fmt: skip
_RABBITMQ_CAPABILITIES: Final = replace(
    ACTIVEMQ_CAPABILITIES,
    atomic_move=False, browse=Browsing.NONE, selectors=False, priorities=False, depth=False, selector_reach=None,
    max_unacked=1000,
)  # fmt: skip

# JMS's; AMQP has 255.
_HIGHEST_PRIORITY: Final = 9
# What the reply addresses of infertool on Artemis begin with.
_REPLIES: Final = "infertool.replies."

# Whether a body is text or bytes.
_TYPE: Final = "amq-msg-type"
# A time in AMQP is in seconds, which have this many digits for 30 000 years; clients of JMS write milliseconds.
_SECONDS_DIGITS: Final = 11
# What RabbitMQ writes on a message that it dead-letters.
_DEATHS: Final = ("x-death", "x-first-death-", "x-last-death-")
# SEND's own headers, which Artemis and RabbitMQ keep as if they were the producer's.
_ECHOED: Final = ("receipt", "transaction", "destination-type")


def _artemis_obeys(name: str) -> bool:
    # It drops a message whose `_AMQ_DUPL_ID` it has seen before, and confirms it. Groups are meant to be sent again.
    return name.startswith("_AMQ_") and not name.startswith("_AMQ_GROUP_")


# A SEND to a queue that does not exist declares it, with these arguments. (rabbit_stomp_util of 3.10, and the
# documentation of later ones.)
_OF_QUEUES: Final = frozenset({
    "durable", "auto-delete", "exclusive", "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-expires",
    "x-max-age", "x-max-length", "x-max-length-bytes", "x-max-priority", "x-message-ttl", "x-overflow", "x-queue-name",
    "x-queue-type", "x-stream-max-segment-size-bytes",
})  # fmt: skip
_ARTEMIS_CONVENTIONS: Final = StompConventions(_artemis_obeys)
_RABBITMQ_CONVENTIONS: Final = StompConventions(_OF_QUEUES.__contains__)


@dataclass(frozen=True, slots=True)
class _Artemis(Dialect):
    """Apache Artemis. Its window counts bytes, and an ACK counts at once, also within a transaction."""

    name: str = "Artemis"
    capabilities: Capabilities = _ARTEMIS_CAPABILITIES
    conventions: StompConventions = _ARTEMIS_CONVENTIONS
    depth_advice: str = "give the user the permission `manage` on the address activemq.management"
    exclusive: tuple[tuple[str, str], ...] = ()
    patterns: bool = False
    errors_end: bool = True
    counts_ends: bool = True
    # What STOMP clients know as the id is none that Artemis's selectors see; they would match nothing.
    selects_ids: bool = False
    # After an end without it Artemis may keep a message for the session that has ended, until it is restarted.
    farewell: bytes = b"DISCONNECT\n\n\0"
    depth: DepthSource = DepthSource.MANAGEMENT
    remote_replies: str = ""

    def own_replies(self, token: str) -> ReplyPlace:
        """See `Dialect`: a topic of this connection's own. A queue would stay, and would be made anew by late replies.

        Artemis knows temporary queues by no name that a STOMP client could send.
        """
        return ReplyPlace(_REPLIES + token, headers={"subscription-type": "MULTICAST"})

    def prefetches(self, window: int, share: int) -> list[dict[str, str]]:  # noqa: ARG002  # one is enough
        """See `Dialect`: a window in bytes. Artemis delivers while any of it is left, so one message always fits."""
        # Artemis counts about 230 bytes for a message beside its body.
        return [{"consumer-window-size": str(window * 1024), "subscription-type": "ANYCAST"}]

    def place(self, queue: str, *, exists: bool = False) -> str:  # noqa: ARG002
        """See `Dialect`: a slash and what is before it would be part of the address."""
        return queue.removeprefix(PREFIX)

    def send(self, outgoing: Outgoing, extra: dict[str, str]) -> bytes:
        """See `Dialect`: without a type Artemis creates a topic, and drops what nobody subscribes to."""
        destination = self.place(outgoing.destination)
        kind = "MULTICAST" if destination.startswith(_REPLIES) else "ANYCAST"
        where = {"destination": destination, "destination-type": kind}
        return messages.to_send(_as_jms(outgoing), {**where, **extra})

    def message(self, frame: Frame, source: str, epoch: int) -> Message:
        """See `Dialect`: an id is the consumer's and the message's; only the latter stays over redeliveries."""
        headers = frame.headers
        message_id = headers.get("message-id", "").rpartition(",")[2]
        # Every body has a length. Of a bytes message it stands among the headers, else the encoder adds it at the end.
        is_bytes = _stands_before(headers, "content-length", "ack") and headers.get(_TYPE) != TEXT
        kind = BYTES if is_bytes else TEXT
        death = {}
        if "_AMQ_ORIG_ADDRESS" in headers:
            death = {"original-destination": PREFIX + headers["_AMQ_ORIG_ADDRESS"], "originalExpiration": "0"}
        dropped = (*_ECHOED, _TYPE, *(name for name in headers if name.startswith("_AMQ_ORIG_")))
        return _rewritten(frame, source, epoch, message_id, kind, dropped, death)


@dataclass(frozen=True, slots=True)
class _RabbitMQ(Dialect):
    """RabbitMQ's STOMP plugin. Each queue has its own order of confirmations, and receipts of SENDs are such."""

    name: str = "RabbitMQ"
    capabilities: Capabilities = _RABBITMQ_CAPABILITIES
    conventions: StompConventions = _RABBITMQ_CONVENTIONS
    stamps: bool = False
    no_round_trip: str = "over STOMP, RabbitMQ takes messages to a temporary queue only as replies"
    depth_advice: str = "use amqp:// for RabbitMQ"
    # An exclusive queue belongs to one connection, and ends with it.
    exclusive: tuple[tuple[str, str], ...] = (("exclusive", "true"), ("durable", "false"), ("auto-delete", "true"))
    patterns: bool = False
    errors_end: bool = True
    counts_ends: bool = True
    selects_ids: bool = False
    vhosts: bool = True
    depth: DepthSource = DepthSource.NONE
    remote_replies: str = REPLY_QUEUE

    def own_replies(self, token: str) -> ReplyPlace:
        """See `Dialect`: the queue is made for the first request, and its deliveries name it as their subscription."""
        address = f"/temp-queue/infertool-{token}"
        return ReplyPlace(address, subscription=address, subscribes=False)

    def prefetches(self, window: int, share: int) -> list[dict[str, str]]:  # noqa: ARG002  # one is enough
        """See `Dialect`: AMQP's prefetch has 16 bits."""
        return [{"prefetch-count": str(min(window, 65535))}]

    def place(self, queue: str, *, exists: bool = False) -> str:
        """See `Dialect`: SUBSCRIBE to `/queue/` declares the queue, which fails for one that has arguments."""
        return queue.replace(PREFIX, "/amq" + PREFIX, 1) if exists else queue

    def send(self, outgoing: Outgoing, extra: dict[str, str]) -> bytes:
        """See `Dialect`: with an id that stays over redeliveries."""
        added = {MESSAGE_ID: outgoing.properties.message_id or str(uuid.uuid4()), _TYPE: outgoing.kind.value}
        return messages.to_send(_dated(outgoing), {**added, **_expiration(outgoing), **extra})

    def bulk_head(self, template: Outgoing, kind: BodyKind) -> bytes:
        """See `Dialect`: an id would be the same for all."""
        return messages.to_send(template, {_TYPE: kind.value, **_expiration(template)})

    def message(self, frame: Frame, source: str, epoch: int) -> Message:
        """See `Dialect`: the `message-id` is one of this delivery.

        The producer's own stays; where there is none, an event id stands for it. A message that has neither is another
        one each time it comes.
        """
        headers = frame.headers
        message_id = headers.get(MESSAGE_ID) or headers.get("event_id") or str(uuid.uuid4())
        # The plugin's name of it.
        added = {TTL: headers["expiration"]} if "expiration" in headers else {}
        sent = headers.get("timestamp", "")
        if sent.isascii() and sent.isdigit() and len(sent) <= _SECONDS_DIGITS:
            added["timestamp"] = sent + "000"
        if "x-first-death-queue" in headers:
            added |= {
                "original-destination": PREFIX + headers["x-first-death-queue"],
                "originalExpiration": headers.get("x-original-expiration", "0"),
                "dlqDeliveryFailureCause": headers.get("x-first-death-reason", ""),
            }
        dropped = (*_ECHOED, _TYPE, "expiration", *(name for name in headers if name.startswith(_DEATHS)))
        # AMQP has no types, so that only what infertool sent tells its own.
        kind = BYTES if headers.get(_TYPE) == BYTES else TEXT
        return _rewritten(frame, source, epoch, message_id, kind, dropped, added)


def _dated(outgoing: Outgoing) -> Outgoing:
    """Return `outgoing` with the time of sending in seconds, as AMQP has it: RabbitMQ adds none.

    A priority above 9 would come back as a header.
    """
    known = outgoing.properties
    seconds = (_now_ms() if known.timestamp_ms is None else known.timestamp_ms) // 1000
    priority = None if known.priority is None else min(known.priority, _HIGHEST_PRIORITY)
    return replace(outgoing, properties=msgspec.structs.replace(known, timestamp_ms=seconds, priority=priority))


def _as_jms(outgoing: Outgoing) -> Outgoing:
    """Return `outgoing` with a priority from 0 to 9, and AMQP's time from now as a time to expire."""
    known = outgoing.properties
    changes: dict[str, int] = {}
    if known.priority is not None and known.priority > _HIGHEST_PRIORITY:
        changes["priority"] = _HIGHEST_PRIORITY
    if known.ttl_ms is not None and known.expires_ms is None:
        changes["expires_ms"] = _now_ms() + known.ttl_ms
    return replace(outgoing, properties=msgspec.structs.replace(known, **changes)) if changes else outgoing


def _expiration(outgoing: Outgoing) -> dict[str, str]:
    """Return AMQP's expiry, which is a time from now."""
    expires_ms, ttl_ms = outgoing.properties.expires_ms, outgoing.properties.ttl_ms
    if expires_ms is not None:
        ttl_ms = max(0, expires_ms - _now_ms())
    return {} if ttl_ms is None else {"expiration": str(ttl_ms)}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _stands_before(headers: Mapping[str, str], name: str, other: str) -> bool:
    for each in headers:
        if each in {name, other}:
            return each == name
    return False


def _rewritten(
    frame: Frame,
    source: str,
    epoch: int,
    message_id: str,
    kind: BodyKind,
    dropped: tuple[str, ...],
    added: Mapping[str, str],
) -> Message:
    """Return the message in `frame`, with headers as ActiveMQ would have them."""
    headers = {name: value for name, value in frame.headers.items() if name not in dropped}
    headers |= {"message-id": message_id, "destination": source, **added}
    return TextFormMessage(
        id=message_id,
        source=source,
        native=headers,
        body=frame.body,
        kind=kind,
        redelivered=headers.get("redelivered") == "true",
        epoch=epoch,
        token=headers.get("ack", ""),
    )


ACTIVEMQ: Final = Dialect()
ARTEMIS: Final = _Artemis()
RABBITMQ: Final = _RabbitMQ()


def of(server: str) -> Dialect:
    """Return the dialect of a broker by the `server` header of its CONNECTED."""
    if server.startswith("ActiveMQ-Artemis"):
        return ARTEMIS
    return RABBITMQ if server.startswith("RabbitMQ") else ACTIVEMQ
