"""Health: whether a restart would help a consumer (live), and whether it can take events (ready)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from infertool.net.connection_state import ConnectionState
from infertool.telemetry.details import Details
from infertool.telemetry.stats import Report

# A thread that has not run for this time hangs, on however busy a machine. Seconds.
HANGS_S: Final = 30.0
_CONNECTED: Final = ConnectionState.CONNECTED.value


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that is well or not. `value` is what was measured, for people."""

    name: str
    ok: bool
    value: str


def live(report: Report, now: float, stuck_after_s: float) -> list[Condition]:
    """Return the conditions that only a restart cures. `now` is monotonic. A server that is away is none of them."""
    details = report.details
    if details is None:
        return []
    process = at_most("process", now - details.made_at, HANGS_S, "last report {} ago")
    if details.ticks is None or details.reported_at is None:
        return [process]
    ticks = details.ticks
    behind_s = now - details.reported_at
    # The watchdog of long calls looks ten times within their time-out.
    watchdog_limit_s = max(HANGS_S, ticks.call_limit_s / 2)
    call_limit_s = 2 * ticks.call_limit_s
    return [
        process,
        at_most("gauge", behind_s, HANGS_S, "last ran {} ago"),
        at_most("reader", ticks.reader_s, HANGS_S, "last ran {} ago"),
        at_most("watchdog", ticks.watchdog_s, watchdog_limit_s, "last ran {} ago"),
        at_most("calls", ticks.call_s, call_limit_s, "the longest call has taken {}"),
        _progress(report, details, now, stuck_after_s),
    ]


def is_stuck(report: Report, details: Details, now: float, stuck_after_s: float) -> bool:
    """Return True if messages should come, or events be settled, and none has for `stuck_after_s`."""
    return _takes_nothing(report, details, now, stuck_after_s) or _settles_nothing(report, details, now, stuck_after_s)


def _takes_nothing(report: Report, details: Details, now: float, stuck_after_s: float) -> bool:
    if report.in_progress >= report.window or not report.waiting or not _should_move(report):
        return False
    return now - max(_began(details), details.received_at or 0.0) > stuck_after_s


def _settles_nothing(report: Report, details: Details, now: float, stuck_after_s: float) -> bool:
    """Return True if the window is full, and no event of it ends."""
    if report.in_progress < report.window or not report.window or not _should_move(report):
        return False
    return now - max(_began(details), details.settled_at or 0.0) > stuck_after_s


def _should_move(report: Report) -> bool:
    return _connected(report) and not report.paused and report.circuit not in {"open", "half-open"}


def _began(details: Details) -> float:
    """Return since when something may be waited for: until a connection is up again there is nothing."""
    return max([details.started_at, *details.link_since.values()])


def _waits(report: Report, details: Details, now: float, stuck_after_s: float) -> bool:
    """Return True if events wait for what a restart does not bring.

    That is the receiver of results, a model that says that it is away, or a call that takes its time.
    """
    last = max(details.called_at or 0.0, details.held_until or 0.0)
    return report.unconfirmed > 0 or now - last <= stuck_after_s


def idle_s(details: Details, now: float) -> float:
    """Return the seconds since a message was received or an event was settled; at first since the start."""
    return max(0.0, now - max(details.started_at, details.received_at or 0.0, details.settled_at or 0.0))


def _progress(report: Report, details: Details, now: float, stuck_after_s: float) -> Condition:
    waiting = "unknown" if report.waiting is None else str(report.waiting)
    value = (
        f"{report.in_progress} in progress of {report.window}, {waiting} waiting, "
        f"nothing received or settled for {_seconds(idle_s(details, now))} (limit {_seconds(stuck_after_s)})"
    )
    stays = _settles_nothing(report, details, now, stuck_after_s)
    stays = stays and not _waits(report, details, now, stuck_after_s)
    return Condition("progress", ok=not (stays or _takes_nothing(report, details, now, stuck_after_s)), value=value)


def ready(report: Report, *, publishes: bool, stopping: bool) -> list[Condition]:
    """Return the conditions under which events are taken and their results are confirmed."""
    sides = ("broker", "phoenix") if publishes else ("broker",)
    links = [(side, report.links.get(side, "not connected")) for side in sides]
    return [
        *(Condition(side, ok=state == _CONNECTED, value=state) for side, state in links),
        Condition("model", ok=report.circuit != "open", value=_model(report)),
        Condition("stopping", ok=not stopping, value="yes" if stopping else "no"),
    ]


def _model(report: Report) -> str:
    return "warm" if report.circuit == "none" else f"circuit {report.circuit}"


def _connected(report: Report) -> bool:
    return bool(report.links) and all(state == _CONNECTED for state in report.links.values())


def at_most(name: str, value_s: float | None, limit_s: float, text: str) -> Condition:
    """Return the condition that a time is at most `limit_s`; `text` has a place for it. None: nothing is measured."""
    if value_s is None:
        return Condition(name, ok=True, value="not running")
    value = f"{text.format(_seconds(value_s))} (limit {_seconds(limit_s)})"
    return Condition(name, ok=value_s <= limit_s, value=value)


def _seconds(value_s: float) -> str:
    return f"{value_s:.1f} s"


def all_ok(conditions: Sequence[Condition]) -> bool:
    """Return True if every condition is met."""
    return all(condition.ok for condition in conditions)
