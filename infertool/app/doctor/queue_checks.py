"""Checks of the queue of events and of the dead-letter queue: rights, depth, age, policy. They take no message."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from infertool.app.doctor.result import Finding, fail, ok, skip, warn
from infertool.app.doctor.words import duration, number
from infertool.brokers.examining import ConnectionFacts, Examined, QueueAccess, Right
from infertool.brokers.port import Broker, Depth
from infertool.settings import Settings

_MEASURE_S: Final = 5.0
_OLD_S: Final = 3600.0
_RIGHTS: Final = "give the user of broker.user the right in the broker's configuration"
_UNEXAMINED: Final = "this kind of broker does not tell"


@dataclass(slots=True)
class Opened:
    """A connected broker, its facts (None where it tells none), and the queues that were looked at."""

    broker: Broker
    facts: ConnectionFacts | None
    accesses: dict[str, QueueAccess] = field(default_factory=dict)

    def access(self, queue: str, timeout_s: float) -> QueueAccess | None:
        """Look at a queue, once. None where this kind of broker cannot."""
        if queue not in self.accesses and isinstance(self.broker, Examined):
            self.accesses[queue] = self.broker.examine(queue, timeout_s)
        return self.accesses.get(queue)


def queue(settings: Settings, timeout_s: float, opened: Opened) -> Finding:
    """Check the right to consume the queue of events."""
    name = settings.broker.queue
    access = opened.access(name, timeout_s)
    if access is None:
        return skip(_UNEXAMINED)
    if access.exists is False:
        return _missing(name, settings, access, access.read)
    return _by_right(name, "consume", access.read)


def depth(settings: Settings, timeout_s: float, opened: Opened) -> Finding:
    """Tell how many messages the queue holds, and how many consumers it has."""
    name = settings.broker.queue
    advice = opened.facts.depth_advice if opened.facts else ""
    if not opened.broker.capabilities.depth:
        return skip("this broker does not tell it", advice)
    if not opened.broker.conventions.is_queue(name):
        return skip(f"{name} names several queues")
    access = opened.access(name, timeout_s)
    if access and access.exists is False:
        return skip(f"there is no queue {name}")
    found = (access.depth if access else None) or opened.broker.measure(name, _MEASURE_S)
    if found is None and opened.facts is None:
        return skip(f"the broker tells nothing of {name}")
    if found is None or found.size is None:
        return warn(f"the broker does not tell the depth of {name}", advice or "see the broker's log")
    return ok(_depth_words(found), found.size, "messages")


def oldest(settings: Settings, timeout_s: float, opened: Opened) -> Finding:
    """Tell the age of the first message of the queue."""
    access = opened.access(settings.broker.queue, timeout_s)
    if access is None or (access.oldest_ms is None and not access.is_empty):
        return skip(access.untold if access else _UNEXAMINED)
    if access.oldest_ms is None:
        return ok("no message waits")
    age_s = time.time() - access.oldest_ms / 1000
    value = f"{duration(age_s)} old"
    if age_s > _OLD_S:
        return warn(value, "is a consumer running, and quick enough? infertool consume", age_s, "seconds")
    return ok(value, age_s, "seconds")


def dlq(settings: Settings, timeout_s: float, opened: Opened) -> Finding:
    """Check the right to send to the dead-letter queue."""
    name = settings.deadletter.queue
    access = opened.access(name, timeout_s)
    if access is None:
        return skip(_UNEXAMINED)
    if access.exists is False and access.write.allowed is not False:
        return _missing(name, settings, access, access.write)
    found = _by_right(name, "send to", access.write)
    measured = access.depth
    if measured is None and access.exists and opened.broker.capabilities.depth:
        measured = opened.broker.measure(name, _MEASURE_S)
    if measured is None or measured.size is None or not access.write.allowed:
        return found
    return ok(f"{found.value}; {number(measured.size, 'dead letter')}", measured.size, "messages")


def policy(settings: Settings, timeout_s: float, opened: Opened) -> Finding:
    """Tell what the broker does with messages of the queue that it gives up."""
    access = opened.access(settings.broker.queue, timeout_s)
    if access is None or access.policy is None:
        return skip(access.untold if access else _UNEXAMINED)
    return ok(access.policy)


def _missing(name: str, settings: Settings, access: QueueAccess, right: Right) -> Finding:
    if settings.broker.declare:
        return ok(f"there is no queue {name} yet; broker.declare has it made")
    if access.is_made:
        return skip(f"there is no queue {name} yet, so its rights are unknown: {right.reason}")
    return fail(f"there is no queue {name}", "check its name, declare it, or set broker.declare")


def _by_right(name: str, what: str, right: Right) -> Finding:
    if right.allowed is None:
        return skip(f"{name}: {right.reason}")
    if right.allowed:
        return ok(f"may {what} {name}")
    return fail(f"may not {what} {name}: {right.reason}", _RIGHTS)


def _depth_words(found: Depth) -> str:
    parts = [number(found.size or 0, "message")]
    if found.in_flight is not None:
        parts.append(f"{found.in_flight} of them unacked")
    if found.consumers is not None:
        parts.append(number(found.consumers, "consumer"))
    return ", ".join(parts)
