"""The schedule in a SEND: AMQ_SCHEDULED_DELAY, _PERIOD and _REPEAT.

As ActiveMQ 5.17.2 reads it (measured): without a delay the first message comes after a period, and REPEAT counts those
after the first.
"""

from __future__ import annotations

from dataclasses import dataclass

from infertool.devserver.broker.errors import ProtocolError

_DELAY, _PERIOD, _REPEAT, _CRON = (f"AMQ_SCHEDULED_{name}" for name in ("DELAY", "PERIOD", "REPEAT", "CRON"))
# Those of a 64-bit number.
_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a message is delivered: after `delay_ms`, and `repeat` times more, every `period_ms`."""

    delay_ms: int
    period_ms: int
    repeat: int


def take_schedule(headers: dict[str, str]) -> Schedule | None:
    """Take the schedule out of a SEND's headers. None when it has none: REPEAT alone is a header as any other.

    Raises ProtocolError where ActiveMQ closes the connection.
    """
    if _CRON in headers:
        raise ProtocolError(f"{_CRON} is not supported by the embedded broker")
    if _DELAY not in headers and _PERIOD not in headers:
        return None
    delay, period, repeat = (_number(headers.pop(name, "0"), name) for name in (_DELAY, _PERIOD, _REPEAT))
    return Schedule(delay or period, period, repeat if period else 0)


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise ProtocolError(f"{name} is no number from 0: {text[:40]!r}", fatal=True)
    return int(text)
