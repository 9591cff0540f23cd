"""What Spring for Apache Kafka writes on a dead letter: the headers of its `DeadLetterPublishingRecoverer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from infertool.message import BrokerDeath

_PREFIX: Final = "kafka_dlt-"
_TOPIC, _PARTITION, _OFFSET = (f"{_PREFIX}original-{name}" for name in ("topic", "partition", "offset"))
_CLASS, _CAUSE, _MESSAGE = (f"{_PREFIX}exception-{name}" for name in ("fqcn", "cause-fqcn", "message"))
# The exceptions of deserialisers have names of their own.
_KEY_CLASS, _KEY_MESSAGE = (f"{_PREFIX}key-exception-{name}" for name in ("fqcn", "message"))
MARKS: Final = frozenset({
    _TOPIC, _PARTITION, _OFFSET, _CLASS, _CAUSE, _MESSAGE, _KEY_CLASS, _KEY_MESSAGE,
    *(f"{_PREFIX}original-{name}" for name in ("timestamp", "timestamp-type", "consumer-group")),
    f"{_PREFIX}exception-stacktrace", f"{_PREFIX}key-exception-stacktrace",
})  # fmt: skip
_INT_BYTES, _LONG_BYTES = 4, 8


def of(pairs: Sequence[tuple[str, bytes | None]], at_ms: int | None) -> BrokerDeath | None:
    """Return what the headers of a record say of its death; None if they say nothing.

    Each death adds its headers: the first tells the origin, the last the cause. `at_ms` is the record's own time.
    """
    marks = [(name, value) for name, value in pairs if name in MARKS]
    if not marks:
        return None
    first = dict(reversed(marks))
    last = dict(marks)
    complete = (
        bool(first.get(_TOPIC))
        and len(first.get(_PARTITION) or b"") == _INT_BYTES
        and len(first.get(_OFFSET) or b"") == _LONG_BYTES
    )
    return BrokerDeath(_text(first.get(_TOPIC)), _cause(last), complete=complete, at_ms=at_ms)


def _cause(marks: dict[str, bytes | None]) -> str:
    """Return `CLASS: MESSAGE`. Spring's own exception says only that a listener failed; its cause is what failed."""
    kind = _text(marks.get(_CAUSE) or marks.get(_CLASS) or marks.get(_KEY_CLASS))
    message = _text(marks.get(_MESSAGE) or marks.get(_KEY_MESSAGE))
    return ": ".join(filter(None, (kind, message)))


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")
