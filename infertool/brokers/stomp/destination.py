"""Names of queues: the one parser for what people type, settings hold, and headers say.

ActiveMQ takes and confirms any destination: a misspelt prefix, a list (`/queue/a,/queue/b` is sent to both), a pattern,
options. So nothing is sent to a name that did not pass here. Measured on ActiveMQ 5.17.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from infertool.errors import UsageError

PREFIX: Final = "/queue/"
# ActiveMQ takes header lines of 10 KiB, and a name stands in several.
_LONGEST: Final = 2048
_PART, _REST = "*", ">"
_ADVICE: Final = "write for example orders or /queue/orders"


def queue(text: str) -> str:
    """Return the one queue that was typed as `NAME` or `/queue/NAME`, as `/queue/NAME`. Raises `UsageError`."""
    if is_pattern(text) or "?" in text:
        raise UsageError(f"{text!r} names many queues or none", advice="name one queue, without options")
    return PREFIX + _name(text, text)


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
