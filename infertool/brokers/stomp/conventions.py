"""How STOMP brokers spell queues, select messages and carry headers: ActiveMQ's rules."""

from __future__ import annotations

from typing import Final

from infertool.brokers import headers
from infertool.brokers.port import Browsing, Capabilities, Match, Selector
from infertool.brokers.stomp import destination, messages
from infertool.brokers.stomp.frames import LIMITS

# Each of these takes a byte more on the wire.
_ESCAPED: Final = (b":", b"\\", b"\n", b"\r")
# A character becomes at most four bytes.
_WIDEST: Final = 4
# Headers that the adapter adds to a message, with some to spare.
_ADDED: Final = 10

# What one subscription gets from a default ActiveMQ, whatever prefetch it asks for, and how far a selector sees there.
_PAGE: Final = 200

# ActiveMQ Classic with its default policy. A transaction that holds more acks than the page hangs for ever; all of it
# is held in the broker's memory until its commit.
ACTIVEMQ: Final = Capabilities(
    atomic_move=True,
    browse=Browsing.PARTIAL,
    selectors=True,
    exclusive=True,
    priorities=True,
    expiry=True,
    depth=True,
    delivery_count=False,
    reply_addresses=True,
    max_unacked=_PAGE,
    max_moves=100,
    max_move_bytes=8 * 1024 * 1024,
    selector_reach=_PAGE,
)


class StompConventions:
    """See `infertool.brokers.port.Conventions`."""

    max_headers: int = LIMITS.headers - _ADDED
    set_by_adapter: frozenset[str] = messages.SET_BY_ADAPTER
    reserved: frozenset[str] = frozenset({"original-destination"})
    death_marks: frozenset[str] = headers.DEATH_MARKS

    def queue(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`: `NAME` or `/queue/NAME` becomes `/queue/NAME`."""
        return destination.queue(text)

    def source(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`: also lists, patterns and ActiveMQ's options."""
        return destination.source(text)

    def short(self, queue: str) -> str:
        """See `infertool.brokers.port.Conventions`."""
        return queue.removeprefix(destination.PREFIX)

    def is_queue(self, text: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return destination.is_queue(text)

    def covers(self, source: str, queue: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return destination.covers(source, queue)

    def is_refused(self, name: str, value: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return messages.is_refused(name, value)

    def is_sendable(self, name: str, value: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return messages.is_sendable(name, value)

    def fits(self, name: str, value: str) -> bool:
        """See `infertool.brokers.port.Conventions`: 10 KiB a line, escapes included."""
        if _WIDEST * (len(name) + len(value)) < LIMITS.header_line:
            return True
        text = (name + value).encode("utf-8", "surrogateescape")
        return len(text) + sum(map(text.count, _ESCAPED)) < LIMITS.header_line  # less: a colon is between the two


CONVENTIONS: Final = StompConventions()


def jms_selector(selector: Selector | None) -> str:
    """Return the SQL-like expression that a SUBSCRIBE takes; empty for all messages."""
    if selector is None or isinstance(selector, str):
        return selector or ""
    return " OR ".join(_terms(selector))


def _terms(match: Match) -> list[str]:
    terms = []
    if len(match.ids) == 1:
        terms.append(f"JMSMessageID = {_quoted(match.ids[0])}")
    elif match.ids:
        terms.append(f"JMSMessageID IN ({', '.join(map(_quoted, match.ids))})")
    terms += [f"{name} = {_quoted(value)}" for name, value in match.headers.items()]
    if match.correlation_id is not None:
        terms.append(f"JMSCorrelationID = {_quoted(match.correlation_id)}")
    return terms + [f"{name} LIKE {_quoted(_escaped(begin))}" for name, begin in match.prefixes.items()]


def _escaped(text: str) -> str:
    """Return `text` followed by anything, as LIKE understands it. In that `_` is any character."""
    return text.replace("%", "_") + "%"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
