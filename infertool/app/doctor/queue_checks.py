"""Checks of the queue of events and of the dead-letter queue: rights, depth, age, policy. They take no message."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from infertool.app.doctor.result import Finding, Status, fail, ok, skip, warn
from infertool.app.doctor.words import duration, number
from infertool.brokers import weighted_queues
from infertool.brokers.examining import ConnectionFacts, Examined, QueueAccess, Right
from infertool.brokers.partitioned import Lagging
from infertool.brokers.port import Broker, Depth
from infertool.consumer.delays import Delays
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


def of_each(check: Callable[[str], Finding], settings: Settings, also: Sequence[str] = ()) -> Finding:
    """Return the finding of the queue of events; of several with weights, all of them, with the worst status."""
    names = [*weighted_queues.names(settings.broker.queue), *also]
    if len(names) == 1:
        return check(names[0])
    found = [check(name) for name in names]
    order = (Status.FAIL, Status.WARN, Status.OK, Status.SKIP)
    worst = min(found, key=lambda finding: order.index(finding.status))
    pairs = zip(names, found, strict=True)
    told = "; ".join(each.value if name in each.value else f"{name}: {each.value}" for name, each in pairs)
    return replace(worst, value=told, number=None, unit="")


def queue(settings: Settings, timeout_s: float, opened: Opened) -> Finding:
    """Check the right to consume the queue of events, and the retry topics."""
    delays = Delays(weighted_queues.parse(settings.broker.queue), settings.deadletter.retry_topics)
    waiting = [delay.queue for delay in delays.all]
    return of_each(lambda name: _queue(name, settings, timeout_s, opened), settings, waiting)


def _queue(name: str, settings: Settings, timeout_s: float, opened: Opened) -> Finding:
    access = opened.access(name, timeout_s)
    if access is None:
        return skip(_UNEXAMINED)
    if access.exists is False:
        return _missing(name, settings, access, access.read)
    return _by_right(name, "consume", access.read)


def depth(settings: Settings, timeout_s: float, opened: Opened) -> Finding:
    """Tell how many messages the queue holds, and how many consumers it has."""
    return of_each(lambda name: _lag(name, opened.broker) or _depth(name, timeout_s, opened), settings)


def _depth(name: str, timeout_s: float, opened: Opened) -> Finding:
    advice = opened.facts.depth_advice if opened.facts else ""
    if not opened.broker.capabilities.depth:
        return skip("this broker does not tell it", advice)
    if not opened.broker.conventions.is_queue(name):
        return skip(f"{name} names several queues")
    access = opened.access(name, timeout_s)
    if access and access.exists is False:
        return skip(f"there is no queue {name}")
    found = (access.depth if access else None) or opened.broker.measure(name, _MEASURE_S)
    untold = access.untold if access else ""
    if found is None and not advice and (untold or opened.facts is None):
        return skip(untold or f"the broker tells nothing of {name}")
    if found is None or found.size is None:
        return warn(f"the broker does not tell the depth of {name}", advice or "see the broker's log")
    return ok(_depth_words(found), found.size, "messages")


def _lag(name: str, broker: Broker) -> Finding | None:
    """Tell how far the consumers are behind, where the broker keeps what is settled."""
    lag = broker.lag(name, _MEASURE_S) if isinstance(broker, Lagging) else None
    if lag is None:
        return None
    behind = "" if lag.seconds is None else f", the oldest {duration(lag.seconds)} old"
    words = f"{number(lag.messages, 'message')} not settled{behind}"
    if lag.lost:
        lost = f"{words}; {number(lag.lost, 'message')} deleted before"
        return warn(lost, f"raise the retention of {name}, or add consumers", lag.lost, "messages")
    return ok(words, lag.messages, "messages")


def oldest(settings: Settings, timeout_s: float, opened: Opened) -> Finding:
    """Tell the age of the first message of the queue."""
    return of_each(lambda name: _oldest(name, timeout_s, opened), settings)


def _oldest(name: str, timeout_s: float, opened: Opened) -> Finding:
    access = opened.access(name, timeout_s)
    if access is None or (access.oldest_ms is None and not access.is_empty):
        return skip(access.untold if access else _UNEXAMINED)
    if access.oldest_ms is None:
        return ok("no message waits")
    # Clocks differ.
    age_s = max(0.0, time.time() - access.oldest_ms / 1000)
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
    return of_each(lambda name: _policy(name, settings, timeout_s, opened), settings)


def _policy(name: str, settings: Settings, timeout_s: float, opened: Opened) -> Finding:
    access = opened.access(name, timeout_s)
    if access is None or access.policy is None:
        return skip(access.untold if access else _UNEXAMINED)
    if access.time_limit and (wrong := access.time_limit.exceeded_by(settings.consume.timeout_s)):
        return warn(access.policy, wrong)
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
