"""How STOMP brokers spell queues, select messages and carry headers: ActiveMQ's rules, and the one parser of names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from infertool.brokers import headers
from infertool.brokers.port import Browsing, Capabilities, Match, Selector
from infertool.brokers.stomp import messages
from infertool.brokers.stomp.frames import LIMITS
from infertool.errors import UsageError
from infertool.text.sanitize import wire_bytes

PREFIX: Final = "/queue/"
# Of reply addresses that another client's request names: ActiveMQ's, and RabbitMQ's.
REMOTE_TEMPORARY: Final = "/remote-temp-queue/"
REPLY_QUEUE: Final = "/reply-queue/"
REPLY_PREFIXES: Final = (REMOTE_TEMPORARY, REPLY_QUEUE)
# ActiveMQ takes header lines of 10 KiB, and a name stands in several.
_LONGEST: Final = 2048
_PART, _REST = "*", ">"
# Characters of a wrong reply-to that an error shows.
_SHOWN: Final = 200
_ADVICE: Final = "write for example orders or /queue/orders"


def queue(text: str) -> str:
    """Return the one queue that was typed as `NAME` or `/queue/NAME`, as `/queue/NAME`. Raises `UsageError`."""
    if is_pattern(text) or "?" in text:
        raise UsageError(f"{text!r} names many queues or none", advice="name one queue, without options")
    return PREFIX + _name(text, text)


def reply_queue(text: str) -> str:
    """Return where the reply to a message with the header `reply-to:text` goes. Raises `UsageError`.

    Beside queues there are ActiveMQ's temporary queues, and what RabbitMQ writes for every queue that AMQP names.
    """
    for prefix in REPLY_PREFIXES:
        name = text.removeprefix(prefix)
        if name != text:
            if not name or "," in name or not name.isprintable() or " " in name or len(name.encode()) > _LONGEST:
                break
            return text
    else:
        return queue(text)
    raise UsageError(f"{text[:_SHOWN]!r} is no queue for replies")


def is_queue(destination: str) -> bool:
    """Return True if `destination` names one queue in full."""
    try:
        return queue(destination) == destination
    except UsageError:
        return False


def is_wildcard(queue: str) -> bool:
    """Return True if `queue` is a pattern for queues that are not known yet, in ActiveMQ's way."""
    return _PART in queue or _REST in queue


def is_pattern(queue: str) -> bool:
    """Return True if `queue` names several queues, in ActiveMQ's way."""
    return "," in queue or is_wildcard(queue)


def source(text: str) -> str:
    """Return what may be subscribed to, each queue as `/queue/NAME`. Raises `UsageError`.

    More than `queue`: a list with commas, patterns (`*` for one part between dots, `>` for all that follow), and
    ActiveMQ's options after a question mark (`?consumer.priority=5`).
    """
    return ",".join(_subscribed(part, text) for part in text.split(","))


def covers(subscribed: str, name: str) -> bool:
    """Return True if a subscription to `subscribed`, a result of `source`, gets the messages of the queue `name`."""
    return any(_matches(pattern.split("."), name.removeprefix(PREFIX).split(".")) for pattern in _patterns(subscribed))


def _subscribed(part: str, text: str) -> str:
    typed, mark, options = part.partition("?")
    name = _name(typed, text)
    parts = name.split(".")
    if any((_PART in each or _REST in each) and each not in {_PART, _REST} for each in parts) or _REST in parts[:-1]:
        raise UsageError(
            f"{text!r} is no pattern that ActiveMQ knows", advice="* is one part between dots, > all that follow"
        )
    if mark and not all(key and equals for key, equals, _ in (each.partition("=") for each in options.split("&"))):
        raise UsageError(f"{text!r} has options that are not name=value", advice="write ?consumer.priority=5")
    return PREFIX + name + mark + options


def _name(typed: str, text: str) -> str:
    """Return what follows the prefix. Raises `UsageError`, which shows the whole `text`."""
    name = typed.removeprefix(PREFIX)
    if not name or name.startswith("/") or PREFIX in name or "://" in name:
        raise UsageError(f"{text!r} is no queue", advice=_ADVICE)
    if "/" in name and name == typed:
        raise UsageError(f"{text!r} is no queue", advice=f"if its name has a slash, write {PREFIX}{name}")
    if name != name.strip() or not name.isprintable():
        raise UsageError(f"{text!r} is no queue: spaces around it, or signs that cannot be printed", advice=_ADVICE)
    if len(name.encode()) > _LONGEST:
        raise UsageError(f"{text[:40]!r}... is no queue: its name has more than {_LONGEST} bytes")
    return name


def _patterns(subscribed: str) -> list[str]:
    return [part.partition("?")[0].removeprefix(PREFIX) for part in subscribed.split(",")]


def _matches(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    """ActiveMQ's rule: `a.>` gets the messages of `a`, too."""
    if pattern[-1] == _REST:
        pattern = pattern[:-1]
        parts = parts[: len(pattern)]
    return len(pattern) == len(parts) and all(p in {_PART, q} for p, q in zip(pattern, parts, strict=True))


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
    """See `infertool.brokers.port.Conventions`. `acts`: a broker obeys this header of a SEND, too."""

    max_headers: int = LIMITS.headers - _ADDED
    set_by_adapter: frozenset[str] = messages.SET_BY_ADAPTER
    reserved: frozenset[str] = frozenset({"original-destination"})
    death_marks: frozenset[str] = headers.DEATH_MARKS
    ages_by_time: bool = False

    def __init__(self, acts: Callable[[str], bool] = lambda _name: False) -> None:
        self._acts = acts

    def queue(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`: `NAME` or `/queue/NAME` becomes `/queue/NAME`."""
        return queue(text)

    def source(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`: also lists, patterns and ActiveMQ's options."""
        return source(text)

    def short(self, queue: str) -> str:
        """See `infertool.brokers.port.Conventions`."""
        return queue.removeprefix(PREFIX)

    def is_queue(self, text: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return is_queue(text)

    def is_lasting(self, address: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return self.is_queue(address)

    def reply_queue(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`."""
        return reply_queue(text)

    def covers(self, source: str, queue: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return covers(source, queue)

    def is_refused(self, name: str, value: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return messages.is_refused(name, value)

    def is_sendable(self, name: str, value: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return messages.is_sendable(name, value) and not self._acts(name)

    def fits(self, name: str, value: str) -> bool:
        """See `infertool.brokers.port.Conventions`: 10 KiB a line, escapes included."""
        if _WIDEST * (len(name) + len(value)) < LIMITS.header_line:
            return True
        text = wire_bytes(name + value)
        return len(text) + sum(map(text.count, _ESCAPED)) < LIMITS.header_line  # less: a colon is between the two

    def keeps_type(self, text: str, tag: str) -> bool:  # noqa: ARG002  # STOMP has none
        """See `infertool.brokers.port.Conventions`."""
        return False


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
