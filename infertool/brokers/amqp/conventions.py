"""How RabbitMQ spells queues, which headers it carries, and what it can do. Nothing here imports a client."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from infertool.brokers.amqp import tables
from infertool.brokers.amqp.deaths import MARKS
from infertool.brokers.header_types import DECIMAL, JSON, TIME, from_text
from infertool.brokers.port import Browsing, Capabilities
from infertool.errors import UsageError
from infertool.text.sanitize import wire_bytes

# Settings and scripts for STOMP brokers spell queues with it.
_PREFIX: Final = "/queue/"
_REPLY_PREFIXES: Final = ("/reply-queue/", "/amq/queue/", _PREFIX)
# Direct reply-to: a name that ends in base64, which may hold slashes.
DIRECT_REPLY: Final = "amq.rabbitmq.reply-to."
_LONGEST: Final = 255
_MOST_HEADERS: Final = 1000
# All headers of a message share one frame of 128 KiB.
_LONGEST_VALUE: Final = 32 * 1024
# Lists by which RabbitMQ copies a message to further queues.
_ROUTING: Final = frozenset({"CC", "BCC"})
_BROKERS: Final = frozenset({"x-delivery-count", "amq-msg-type"})
# AMQP has not all values of these types.
_NARROW: Final = frozenset({TIME, DECIMAL, JSON})

# A prefetch has 16 bits.
MOST_UNACKED: Final = 65535

CAPABILITIES: Final = Capabilities(
    atomic_move=False,
    browse=Browsing.PARTIAL,
    selectors=False,
    exclusive=True,
    priorities=True,
    expiry=True,
    depth=True,
    delivery_count=True,
    reply_addresses=True,
    max_unacked=1000,
    max_moves=100,
    max_move_bytes=8 * 1024 * 1024,
    header_types=True,
    highest_priority=255,
)


class AmqpConventions:
    """See `infertool.brokers.port.Conventions`: a queue is its name."""

    max_headers: int = _MOST_HEADERS
    set_by_adapter: frozenset[str] = _BROKERS
    reserved: frozenset[str] = MARKS
    death_marks: frozenset[str] = MARKS
    ages_by_time: bool = False

    def queue(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`: `NAME` or `/queue/NAME` becomes `NAME`."""
        name = text.removeprefix(_PREFIX)
        if not self.is_queue(name):
            raise UsageError(
                f"{text[:80]!r} is no queue of RabbitMQ", advice="write NAME; lists and patterns are not offered"
            )
        return name

    def source(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`: only one queue is offered."""
        return self.queue(text)

    def short(self, queue: str) -> str:
        """See `infertool.brokers.port.Conventions`."""
        return queue

    def is_queue(self, text: str) -> bool:
        """See `infertool.brokers.port.Conventions`. A comma may be part of a name, but is more likely a list."""
        return (
            text != ""
            and text == text.strip()
            and text.isprintable()
            and not ("," in text or "://" in text or text.startswith("/"))
            and len(text.encode()) <= _LONGEST
        )

    def is_lasting(self, address: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return self.is_queue(address)

    def reply_queue(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`: a queue, or an address of direct reply-to.

        STOMP clients of RabbitMQ write prefixes. What has a slash else is an exchange and a key, or a topic.
        """
        return _reply_queue(text)

    def covers(self, source: str, queue: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return source == queue

    def is_refused(self, name: str, value: str) -> bool:  # noqa: ARG002  # none for its value
        """See `infertool.brokers.port.Conventions`."""
        return name in _ROUTING or len(wire_bytes(name)) > _LONGEST

    def is_sendable(self, name: str, value: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return not (name in _BROKERS or self.is_refused(name, value))

    def fits(self, name: str, value: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        if len(wire_bytes(name)) > _LONGEST:
            return False
        # A character has up to four bytes.
        return len(value) * 4 <= _LONGEST_VALUE or len(wire_bytes(value)) <= _LONGEST_VALUE

    def keeps_type(self, text: str, tag: str) -> bool:
        """See `infertool.brokers.port.Conventions`: times are whole seconds since 1970, decimals have 32 bits."""
        return tag not in _NARROW or tables.holds(from_text(text, tag))


CONVENTIONS: Final = AmqpConventions()


# Asked for each reply.
@lru_cache(maxsize=512)
def _reply_queue(text: str) -> str:
    name = text
    for prefix in _REPLY_PREFIXES:
        name = name.removeprefix(prefix)
    if not CONVENTIONS.is_queue(name) or ("/" in name and name == text and not name.startswith(DIRECT_REPLY)):
        raise UsageError(f"the reply-to {text[:80]!r} is no queue of RabbitMQ")
    return name
