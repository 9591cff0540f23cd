"""Declaring queues, and finding out how a queue was declared. What exists is never changed.

AMQP has no question for a queue's arguments. But RabbitMQ refuses to declare a queue with other arguments than it has,
and names one of them in the refusal; so a declaration that is sure to be refused asks for it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pika import spec as amqp

from infertool.brokers.declaring import Difference, QueueSpec, QueueState, Standing
from infertool.brokers.port import OnSent
from infertool.errors import RefusedError, UnroutableError

if TYPE_CHECKING:
    from infertool.brokers.amqp.management import QueueFacts
    from infertool.brokers.amqp.session import Session

# Has the broker do one of pika's methods on a channel for it alone. Raises `UnroutableError` (there is no such queue),
# `RefusedError`, `ConnectionLostError`.
Ask = Callable[[Any], Any]

_log = logging.getLogger(__name__)

TYPE: Final = "x-queue-type"
_LIMIT: Final = "x-delivery-limit"
_PREFIX: Final = "x-"
_CLASSIC, _QUORUM = "classic", "quorum"
# No queue has such a type or limit, so the broker refuses to make one.
_IMPOSSIBLE: Final = "infertool-asks"
_DURABLE: Final = "durable"
_FLAGS: Final = frozenset({_DURABLE, "auto_delete", "exclusive"})
# More than a queue has arguments.
_MOST_ROUNDS: Final = 40

# PRECONDITION_FAILED - inequivalent arg 'x-max-priority' for queue 'q' in vhost '/':
#   received none but current is the value '5' of type 'signedint'
#   received the value '5' of type 'signedint' but current is none
#   received '5' but current is '9'
_INEQUIVALENT: Final = re.compile(r"inequivalent arg '([^']+)' for queue '.*' in vhost '.*': received (.*)", re.DOTALL)
_CURRENT: Final = re.compile(r".* but current is (?:the value )?(none|'(.*?)')(?: of type '(\w+)')?", re.DOTALL)
_INTEGERS: Final = frozenset({"signedint", "unsignedint", "short", "unsignedshort", "long", "byte", "unsignedbyte"})


def passively(queue: str) -> Any:
    """Return the question for a queue: its messages and consumers, or a refusal."""
    return amqp.Queue.Declare(queue=queue, passive=True)


def own(queue: str) -> Any:
    """Return the declaration of a queue that is one connection's, and ends with it."""
    return amqp.Queue.Declare(queue=queue, exclusive=True, auto_delete=True)


class Declarer:
    """Declares missing queues of `queue_type`, none where that is empty; what exists is left as it is."""

    def __init__(self, queue_type: str) -> None:
        self._queue_type = queue_type
        # The connection on which each queue was there: the broker of the next one may be another, or a new one.
        self._known: dict[str, int] = {}

    def __call__(self, session: Session, queue: str) -> None:
        """Have `queue` exist. Raises RefusedError, ConnectionLostError."""
        if not self._queue_type or self._known.get(queue) == session.epoch:
            return
        if waiting(session.ask, queue) is None:
            create(session.ask, QueueSpec(name=queue, type=self._queue_type))
            _log.info("declared the %s queue %s at %s", self._queue_type, queue, session.target.address)
        self._known[queue] = session.epoch

    def watching(self, queue: str, on_sent: OnSent) -> OnSent:
        """Return `on_sent` of a message to `queue`. Where that queue is gone, it is declared for the next message."""
        return partial(self._sent, queue, on_sent) if self._queue_type else on_sent

    def _sent(self, queue: str, on_sent: OnSent, error: Exception | None) -> None:
        if isinstance(error, UnroutableError):
            self._known.pop(queue, None)
        on_sent(error)


LEAVING: Final = Declarer("")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What the broker has for an argument, in place of what was declared. None is no such argument."""

    argument: str
    found: Any


def mismatch(text: str, declared: Mapping[str, Any]) -> Mismatch | None:
    """Return what a refused declaration tells of the queue; None for a refusal of another kind, or one cut short."""
    names = _INEQUIVALENT.search(text)
    values = names and _CURRENT.fullmatch(names[2])
    if not names or not values:
        return None
    argument, found, kind = names[1], values[2], values[3] or ""
    if values[1] == "none":
        return Mismatch(argument, None)
    # Without a type the broker's is that of ours.
    example = declared.get(argument)
    if argument in _FLAGS or kind == "bool" or isinstance(example, bool):
        return Mismatch(argument, found == "true")
    if kind in _INTEGERS or (not kind and isinstance(example, int)):
        return Mismatch(argument, int(found)) if re.fullmatch(r"-?\d+", found) else None
    return Mismatch(argument, found) if kind in {"", "longstr"} else None


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of a queue, empty where the broker does not tell it, and what its arguments say of deliveries."""

    type: str
    delivery_limit: int | None = None


def kind(ask: Ask, queue: str) -> Kind:
    """Return the kind of a queue that exists. Makes none if it does not. Raises `ConnectionLostError`."""
    for each in _differing(ask, queue, {TYPE: _IMPOSSIBLE}, until=TYPE) or ():
        if each == Mismatch(_DURABLE, found=False):
            return Kind(_CLASSIC)  # the only type that may be not durable
        if each.argument == TYPE:
            return Kind(each.found or _CLASSIC, _argument_limit(ask, queue) if each.found == _QUORUM else None)
    return Kind("")


def _argument_limit(ask: Ask, queue: str) -> int | None:
    found = _differing(ask, queue, {TYPE: _QUORUM, _LIMIT: _IMPOSSIBLE}, until=_LIMIT)
    # Told as a text, since a text was declared.
    limit = str(found[-1].found) if found and found[-1].argument == _LIMIT else ""
    return int(limit) if re.fullmatch(r"-?\d+", limit) else None


def _differing(ask: Ask, queue: str, arguments: Mapping[str, Any], *, until: str = "") -> list[Mismatch] | None:
    """Declare `queue` with what the broker says it has in place of what differs, until it agrees; return what differed.

    With `until`, stop at that argument. None means that the broker does not tell.
    """
    declared: dict[str, Any] = dict(arguments)
    flags: dict[str, bool] = {_DURABLE: True}
    found: list[Mismatch] = []
    for _ in range(_MOST_ROUNDS):
        try:
            ask(amqp.Queue.Declare(queue=queue, arguments=declared, **flags))
        except RefusedError as refused:
            told = mismatch(refused.reason, declared)
            if told is None or told in found:
                return None
        else:
            return found
        found.append(told)
        if told.argument == until:
            return found
        _take(told, declared, flags)
    return None


def _take(told: Mismatch, declared: dict[str, Any], flags: dict[str, bool]) -> None:
    if told.argument in _FLAGS:
        flags[told.argument] = told.found
    elif told.found is None:
        declared.pop(told.argument, None)
    else:
        declared[told.argument] = told.found


def arguments(spec: QueueSpec) -> dict[str, Any]:
    """Return the arguments that declare `spec`."""
    given = {
        TYPE: spec.type or None,
        "x-max-priority": spec.max_priority,
        _LIMIT: spec.delivery_limit,
        "x-dead-letter-exchange": spec.dead_letter_exchange,
        "x-dead-letter-routing-key": spec.dead_letter_routing_key,
    }
    return {name: value for name, value in given.items() if value is not None}


def waiting(ask: Ask, queue: str) -> tuple[int, int] | None:
    """Return the number of messages that wait in `queue`, and of its consumers; None if there is no such queue.

    Raises `RefusedError` for a queue that is another connection's own, `ConnectionLostError`.
    """
    try:
        answer = ask(passively(queue))
    except UnroutableError:
        return None
    return answer.message_count, answer.consumer_count


def examine(ask: Ask, spec: QueueSpec, known: QueueFacts | None) -> QueueState:
    """Return how a queue stands to `spec`. `known` is what the management API tells of it, where it was asked.

    Raises `RefusedError`, `ConnectionLostError`.
    """
    if waiting(ask, spec.name) is None:
        return QueueState(spec, Standing.MISSING, notes=tuple(_missing_exchange(ask, spec)))
    if known is not None:
        return _compared(spec, known)
    found = _differing(ask, spec.name, arguments(spec))
    if found is None:
        return QueueState(spec, Standing.EXISTS, notes=("the broker does not tell how it was declared",))
    wanted = {_DURABLE: True, **arguments(spec)}
    differing = [each for each in found if each.argument in wanted and not _is_default(each, wanted)]
    return _state(
        spec,
        tuple(Difference(each.argument, _text(wanted[each.argument]), _text(each.found)) for each in differing),
        {each.argument: each.found for each in found if each.argument not in wanted},
    )


def create(ask: Ask, spec: QueueSpec) -> QueueState:
    """Make a missing queue. Another one may have made it just now: then it is compared.

    Raises `RefusedError`, `ConnectionLostError`.
    """
    try:
        ask(amqp.Queue.Declare(queue=spec.name, durable=True, arguments=arguments(spec)))
    except RefusedError as refused:
        if mismatch(refused.reason, arguments(spec)):
            return examine(ask, spec, None)
        raise
    return QueueState(spec, Standing.SAME, notes=tuple(_missing_exchange(ask, spec)), created=True)


def _compared(spec: QueueSpec, known: QueueFacts) -> QueueState:
    wanted = arguments(spec)
    has = {**known.arguments, TYPE: known.type}
    effective = {**{_PREFIX + name: value for name, value in known.policy.items()}, **has}
    differences = [
        Difference(name, _text(value), _text(effective.get(name)))
        for name, value in wanted.items()
        if effective.get(name) != value
    ]
    if not known.durable:
        differences.insert(0, Difference(_DURABLE, "true", "false"))
    return _state(spec, tuple(differences), {name: has[name] for name in has if name not in wanted and name != TYPE})


def _state(spec: QueueSpec, differences: tuple[Difference, ...], others: Mapping[str, Any]) -> QueueState:
    has = ", ".join(f"{name}={_text(value)}" for name, value in sorted(others.items()))
    notes = (f"it also has {has}",) if has else ()
    return QueueState(spec, Standing.DIFFERS if differences else Standing.SAME, differences, notes)


def _is_default(found: Mismatch, wanted: Mapping[str, Any]) -> bool:
    """Return True if a queue without a type is what was asked for: it is a classic one."""
    return found == Mismatch(TYPE, None) and wanted.get(TYPE) == _CLASSIC


def _missing_exchange(ask: Ask, spec: QueueSpec) -> list[str]:
    if not spec.dead_letter_exchange:
        return []
    try:
        ask(amqp.Exchange.Declare(exchange=spec.dead_letter_exchange, passive=True))
    except RefusedError as refused:
        if refused.reason.startswith("NOT_FOUND"):
            return [f"there is no exchange {spec.dead_letter_exchange}: until there is one, dead letters are dropped"]
    return []


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" else '""'
