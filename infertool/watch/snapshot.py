"""A snapshot of the view without a screen, as text or JSON, for `watch --once`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

from infertool.errors import ServerError
from infertool.net.connection_state import ConnectionState
from infertool.text.sanitize import clean
from infertool.watch.bus import Bus
from infertool.watch.entry import Entry, Kind
from infertool.watch.formatting import UNICODE, Line, TextStyle
from infertool.watch.listing import Listing
from infertool.watch.rows import alert_row, column_titles, fit_columns, header_lines, result_row, rule_row
from infertool.watch.state import Spread, State, spread

# Maximum of results, and of failures, in the snapshot: the newest ones.
_NEWEST = 10
_WIDTH = 100
_INDENT = ("  ", TextStyle.PLAIN)
_IDLE_S = 0.05


def watch(buses: Sequence[Bus], seconds: float | None) -> None:
    """Take events for `seconds` after all topics are joined, or until all recordings have ended.

    Raises `ServerError` if no connection can be made, and `RecordError` if the recording cannot be written.
    """
    deadline: float | None = None
    while not all(bus.state.ended for bus in buses):
        if deadline is None and seconds is not None and all(bus.state.joined or bus.state.recording for bus in buses):
            deadline = time.monotonic() + seconds
        if deadline is not None and time.monotonic() >= deadline:
            return
        if sum(bus.drain() for bus in buses) == 0:
            time.sleep(_IDLE_S)
        for bus in buses:
            _check_connected(bus.state)
            check_recorded(bus)


def document(bus: Bus) -> dict[str, Any]:
    """Return the snapshot of a bus for JSON. Times are wall-clock seconds; latencies cover the whole run."""
    state, totals = bus.state, bus.state.totals
    return {
        "bus": state.name,
        "link": {
            "state": "played" if state.recording else state.connection.state,
            "address": state.connection.address,
            "reason": state.connection.reason,
        },
        "topics_lost": state.topics,
        "events": totals.events,
        "results": totals.results,
        "failures": totals.failures,
        "alerts": totals.alerts,
        "others": totals.others,
        "gaps": totals.gaps,
        "dropped": state.results.ring.dropped + state.alerts.ring.dropped,
        "rate": round(state.recent(bus.now()).rate, 1),
        "success": None if totals.success is None else round(totals.success, 4),
        "processing_ms": _spread(spread(totals.processing)),
        "latency_ms": _spread(spread(totals.latency)),
        "queue": state.depths.queue,
        "lag_s": state.depths.lag_s,
        "dead_letters": state.depths.dlq,
        "consumer": None if state.consumer is None else dict(state.consumer.document),
        "firing": [{"rule": rule.name, "label": rule.label, "since": rule.since} for rule in state.rules.values()],
        "newest_results": [_entry(entry) for entry in _newest(state.results)],
        "newest_failures": [_entry(entry) for entry in _newest(state.alerts)],
        "note": state.note,
    }


def text(bus: Bus) -> str:
    """Return the snapshot of a bus as text."""
    now, state = bus.now(), bus.state
    fitting = fit_columns(_WIDTH)
    lines: list[Line] = [
        *header_lines([state], state, now, _WIDTH, UNICODE),
        [],
        column_titles(fitting, UNICODE),
        *([_INDENT, *result_row(entry, fitting, now, UNICODE)] for entry in _newest(state.results)),
        [],
        *([_INDENT, *rule_row(rule, _WIDTH, now, UNICODE)] for rule in state.rules.values()),
        *([_INDENT, *alert_row(entry, _WIDTH, now, UNICODE)] for entry in _newest(state.alerts)),
        *([_INDENT, (clean(entry.label), TextStyle.WARN)] for entry in _gaps(state.results)),
    ]
    return "\n".join("".join(piece for piece, _ in line).rstrip() for line in lines).rstrip()


def check_recorded(bus: Bus) -> None:
    """Raise the `RecordError` that ended the recording, if any."""
    if bus.record_fault is not None:
        raise bus.record_fault


def _check_connected(state: State) -> None:
    connection = state.connection
    if connection.state is ConnectionState.LOST and connection.epoch == 0:
        raise ServerError(connection.reason, address=connection.address)


def _newest(listing: Listing) -> list[Entry]:
    return list(islice((entry for entry in reversed(listing.ring) if entry.kind is not Kind.GAP), _NEWEST))


def _gaps(listing: Listing) -> list[Entry]:
    return list(islice((entry for entry in reversed(listing.ring) if entry.kind is Kind.GAP), _NEWEST))


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "event": entry.event,
        "event_id": entry.event_id,
        "name": entry.name,
        "label": entry.label,
        "confidence": entry.confidence,
        "processing_ms": entry.processing_ms,
        "latency_ms": None if entry.latency_s is None else round(entry.latency_s * 1000, 1),
        "at": entry.at,
    }


def _spread(found: Spread) -> dict[str, float | None]:
    return {"p50": _rounded(found.p50), "p99": _rounded(found.p99)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
