"""How Kafka spells topics, and which headers a record carries.

What a record has beside its headers is a header to the layers above: its key (`kafka_key`), and that it has no value
(`kafka_tombstone`). Where a name stands twice, `kafka_headers` has all in their order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from infertool.brokers.header_types import BOOL, BYTES, NULL, TypedText, from_text
from infertool.brokers.kafka.deaths import MARKS
from infertool.brokers.plain_conventions import PlainConventions
from infertool.brokers.port import Browsing, Capabilities
from infertool.errors import UsageError
from infertool.message import BodyKind
from infertool.text.sanitize import wire_bytes

KEY, TOMBSTONE, ALL_HEADERS = "kafka_key", "kafka_tombstone", "kafka_headers"
# Reply topic and correlation id, under the names that Spring for Apache Kafka gives them.
CORRELATION_ID, REPLY_TOPIC, REPLY_PARTITION = "kafka_correlationId", "kafka_replyTopic", "kafka_replyPartition"
# The other properties of a message.
CONTENT_TYPE, CONTENT_ENCODING, TYPE, MESSAGE_ID = "content-type", "content-encoding", "type", "message-id"
# Says whether a body is text or bytes, where nothing else does; and which headers are no texts.
KIND, TYPES = "amq-msg-type", "kafka_types"

CAPABILITIES: Final = Capabilities(
    atomic_move=False,
    browse=Browsing.FULL,
    selectors=False,
    exclusive=False,
    priorities=False,
    expiry=False,
    depth=True,
    delivery_count=False,
    reply_addresses=True,
    header_types=True,
    log=True,
    max_unacked=1000,
    max_moves=100,
    max_move_bytes=8 * 1024 * 1024,
)
SHARE_CAPABILITIES: Final = replace(CAPABILITIES, delivery_count=True)

# Settings and scripts for STOMP brokers spell queues with it.
_PREFIX: Final = "/queue/"
# https://kafka.apache.org/documentation/#multitenancy-topic-naming, and `Topic.validate`.
_TOPIC: Final = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")
# An address for replies with a partition. Kafka numbers partitions with a signed 32-bit integer.
_OF_PARTITION: Final = re.compile(r"([^/]*)/(0|[1-9][0-9]{0,9})")
_PARTITIONS: Final = 2**31
PARTITION_BYTES: Final = 4
KINDS: Final = {kind.value.encode(): kind for kind in BodyKind}


class KafkaConventions(PlainConventions):
    """See `infertool.brokers.port.Conventions`: a queue is a topic."""

    death_marks: frozenset[str] = MARKS
    ages_by_time: bool = True

    def queue(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`: `TOPIC` or `/queue/TOPIC` becomes `TOPIC`."""
        name = text.strip().removeprefix(_PREFIX)
        if not self.is_queue(name):
            raise UsageError(
                f"{text!r} is no topic of Kafka",
                advice="topics have 1 to 249 letters, digits, dots, underscores and hyphens",
            )
        return name

    def is_queue(self, text: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return _TOPIC.fullmatch(text) is not None

    def is_lasting(self, address: str) -> bool:
        """See `infertool.brokers.port.Conventions`: `TOPIC`, or `TOPIC/PARTITION`."""
        return self.is_queue(split_address(address)[0])

    def is_refused(self, name: str, value: str) -> bool:  # noqa: ARG002  # none for its value
        """See `infertool.brokers.port.Conventions`."""
        return not is_name(name)

    def is_sendable(self, name: str, value: str) -> bool:
        """See `infertool.brokers.port.Conventions`: a header that is, or would come back as, something else is not."""
        tag = value.tag if isinstance(value, TypedText) else ""
        if name == KEY:
            return tag in {"", BYTES}
        if name == TOMBSTONE:
            return (value, tag) in {("true", BOOL), ("true", "")}
        is_property = _IS_PROPERTY.get(name)
        if is_property is None:
            return True
        raw = from_text(value, tag) if tag in {BYTES, NULL} else wire_bytes(value)
        return raw is None or not is_property(raw)

    def fits(self, name: str, value: str) -> bool:  # noqa: ARG002  # values have no limit
        """See `infertool.brokers.port.Conventions`."""
        return is_name(name)

    def reply_queue(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`: `TOPIC`, or `TOPIC/PARTITION`."""
        topic, partition = split_address(text)
        if partition is None:
            return self.queue(topic)
        return f"{self.queue(topic)}/{partition}"


def split_address(text: str) -> tuple[str, int | None]:
    """Return topic and partition of `TOPIC/PARTITION`. Any other text is a topic, whether Kafka allows it or not."""
    if (match := _OF_PARTITION.fullmatch(text)) and int(match[2]) < _PARTITIONS:
        return match[1], int(match[2])
    return text, None


def is_name(text: str) -> bool:
    """Return True if a header can have this name. librdkafka ends names at a NUL; of what is no UTF-8 it crashes."""
    return "\0" not in text and (text.isascii() or text.encode("utf-8", "replace").decode() == text)


def _is_text(raw: bytes) -> bool:
    return raw.decode("utf-8", "ignore").encode() == raw


_IS_PROPERTY: Final[Mapping[str, Callable[[bytes], bool]]] = {
    CORRELATION_ID: lambda _raw: True,
    REPLY_PARTITION: lambda raw: len(raw) == PARTITION_BYTES,
    REPLY_TOPIC: lambda raw: _is_text(raw) and split_address(raw.decode())[1] is None,
    KIND: KINDS.__contains__,
    TYPES: lambda raw: raw.lstrip().startswith(b"{"),
    **dict.fromkeys((CONTENT_TYPE, CONTENT_ENCODING, TYPE, MESSAGE_ID), _is_text),
}  # fmt: skip


CONVENTIONS: Final = KafkaConventions()
