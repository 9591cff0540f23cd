"""Logging to standard error, as text or JSON lines, and the observer that logs the consumer's signals.

The observer sums up repeated lines: the first of a kind is written at once, the others in one line every 10 seconds.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TextIO

from infertool.hangup import stderr
from infertool.net.connection_state import ConnectionState
from infertool.telemetry import json_logs, signals
from infertool.text.sanitize import clean

# Interval over which repeats are summed up. Seconds.
INTERVAL_S = 10.0
# Maximum number of kinds of one group that are written at once in an interval.
MOST_KINDS = 10
# Maximum number of kinds remembered for the next interval.
MOST_KNOWN = 100
# Maximum number of kinds that a sum names; its count includes the others.
NAMED_KINDS = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One log line. Lines of the same `group` ("failures") and `kind` are repeats of each other."""

    level: int
    group: str
    kind: str
    text: str
    fields: Mapping[str, Any]


Write = Callable[[int, str, Mapping[str, Any]], None]


@dataclass(slots=True)
class _Group:
    """One group's lines in one interval."""

    # Kinds of the last interval (`known`) and of this one (`seen`): they are not written again.
    known: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    written: int = 0
    held: Counter[str] = field(default_factory=Counter)
    level: int = logging.DEBUG
    latest: Line | None = None


class Repeats:
    """Writes lines through `write(level, text, fields)`. Thread-safe.

    A kind that did not occur for one interval is written at once when it occurs again.
    """

    def __init__(self, write: Write, interval_s: float = INTERVAL_S) -> None:
        self._write = write
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._groups: dict[str, _Group] = {}
        self._timer: threading.Timer | None = None
        self._began = 0.0
        self._closed = False

    def add(self, line: Line) -> None:
        """Write `line` now, or count it for the next sum."""
        with self._lock:
            if not self._must_wait(line):
                self._write(line.level, line.text, line.fields)
            if self._timer is None and not self._closed:
                self._start_timer()

    def close(self) -> None:
        """Write the pending sums, and stop the timer. Later lines are written at once."""
        with self._lock:
            self._closed = True
            if self._timer:
                self._timer.cancel()
                self._timer = None
            self._sum_up()
            self._groups.clear()

    def _must_wait(self, line: Line) -> bool:
        if self._closed:
            return False
        group = self._groups.setdefault(line.group, _Group())
        is_new = line.kind not in group.known and line.kind not in group.seen
        if len(group.seen) < MOST_KNOWN:
            group.seen.add(line.kind)
        if is_new and group.written < MOST_KINDS:
            group.written += 1
            return False
        group.held[line.kind] += 1
        group.level = max(group.level, line.level)
        group.latest = line
        return True

    def _start_timer(self) -> None:
        self._began = time.monotonic()
        self._timer = threading.Timer(self._interval_s, self._end_interval)
        self._timer.name = "log-repeats"
        self._timer.daemon = True
        self._timer.start()

    def _end_interval(self) -> None:
        with self._lock:
            self._timer = None
            if self._closed:
                return
            self._sum_up()
            self._groups = {name: _Group(known=group.seen) for name, group in self._groups.items() if group.seen}
            if self._groups:
                self._start_timer()

    def _sum_up(self) -> None:
        seconds = math.ceil(time.monotonic() - self._began)
        for name, group in self._groups.items():
            if group.latest:
                text = _text(name, group, group.latest, seconds)
                self._write(group.level, text, _fields(name, group, group.latest, seconds))


def _text(name: str, group: _Group, latest: Line, seconds: int) -> str:
    count = group.held.total()
    # A single repeat is written as it is.
    if count == 1:
        return latest.text
    kinds = group.held.most_common(NAMED_KINDS)
    named = ", ".join(f"{kind} {times}" for kind, times in kinds)
    more = ", …" if len(group.held) > NAMED_KINDS else ""
    counted = f", {len(group.held)} kinds ({named}{more})" if len(group.held) > 1 else ""
    return f"+ {count} more {name} in {seconds} s{counted}; the latest: {latest.text}"


def _fields(name: str, group: _Group, latest: Line, seconds: int) -> Mapping[str, Any]:
    kinds = dict(group.held.most_common(MOST_KINDS))
    return {**latest.fields, "repeats": name, "count": group.held.total(), "seconds": seconds, "kinds": kinds}


class _Log(logging.Logger):
    """A logger that a model's code cannot silence by `logging.config` or `logging.disable`."""

    @property
    def disabled(self) -> bool:
        """Always False; assignments are ignored."""
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None: ...

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  (logging's)
        """Return True if records of this level are written."""
        return level >= self.getEffectiveLevel()


logging.setLoggerClass(_Log)
log = logging.getLogger("infertool")
logging.setLoggerClass(logging.Logger)

# What separates the frames of several exceptions (`infertool.models.user_code.traceback_of`).
_HEADING = re.compile(r"^(?:caused by|member of|beside) .*$", re.MULTILINE)
_WITH_DIGIT = re.compile(r"\S*\d\S*")


class TextFormatter(logging.Formatter):
    """`12:03:04.567 warning message`, or `12:03:04.567 warning message [name]`."""

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self._name = f" [{name}]" if name else ""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, followed by the traceback if there is one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock}.{int(record.msecs):03d} {record.levelname.lower():7} {clean(record.getMessage())}{self._name}"
        if not record.exc_info:
            return line
        return "\n".join([line, *map(clean, self.formatException(record.exc_info).split("\n"))])


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the standard error of that moment: a live display replaces it to keep its line below the log lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        self.stream = stderr()
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's)
        """Tell that a record cannot be written, where that can be."""
        with suppress(ValueError):  # the stream is closed
            super().handleError(record)


def set_up(level: str, log_format: Literal["text", "json"], name: str = "") -> None:
    """Send log lines of `level` and above, and Python's warnings, to standard error.

    `name` tells this process's lines of text from those of others that share standard error.
    With `json` each line of standard error is a JSON object, also lines that other code writes to `sys.stderr`.
    """
    handler: logging.Handler
    if log_format == "json":
        json_logs.wrap_stderr()
        handler = json_logs.Handler()
    else:
        handler = StderrHandler()
        handler.setFormatter(TextFormatter(name))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # Does not propagate to the root's handlers, which a model may replace.
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(level.upper())
    logging.captureWarnings(capture=True)


class LogObserver:
    """An observer that logs signals for the person on call.

    Repeated lines are summed up, except at level debug. `close` writes the pending sums.
    """

    def __init__(self) -> None:
        self._repeats = Repeats(write)

    def close(self) -> None:
        """Write the pending sums."""
        self._repeats.close()

    def __call__(self, signal: signals.Signal) -> None:
        """Log `signal`."""
        make = _LINES.get(type(signal))
        line = make(signal) if make else None
        if line is None or not log.isEnabledFor(line.level):
            return
        if log.isEnabledFor(logging.DEBUG):
            write(line.level, line.text, line.fields)
        else:
            self._repeats.add(line)


def write(level: int, text: str, fields: Mapping[str, Any]) -> None:
    """Write a line of infertool's own."""
    log.log(level, "%s", text, extra={"fields": fields})


def _failed(failed: signals.Failed) -> Line:
    text = (
        f"{failed.event_id} failed at {failed.stage} after {failed.attempts} attempts:"
        f" {failed.error_type}: {failed.error}{_place(failed.traceback)}"
    )
    return Line(logging.WARNING, "failures", f"{failed.stage} {failed.error_type}", text, asdict(failed))


def _retried(retried: signals.Retried) -> Line:
    text = (
        f"{retried.event_id} failed on attempt {retried.attempt}, tried again in {retried.delay_s:.2f} s:"
        f" {retried.error}{_place(retried.traceback)}"
    )
    return Line(logging.INFO, "retries", shape(retried.error), text, asdict(retried))


def _place(traceback: str) -> str:
    """Return the location in the model's code that raised the error, if it is known."""
    parts = (part.strip("\n") for part in _HEADING.split(traceback))
    frame = next(filter(None, parts), "").rsplit("\n", 1)[-1]
    return f" ({frame})" if frame else ""


def _held(held: signals.Deferred) -> Line:
    text = f"{held.event_id} held for {held.delay_s:.2f} s: {held.error}"
    return Line(logging.DEBUG, "held events", shape(held.error), text, asdict(held))


def _duplicate(again: signals.DuplicateDelivery) -> Line:
    return Line(logging.DEBUG, "known events", "", f"{again.event_id} was delivered again; it is known", asdict(again))


def _dropped(dropped: signals.Dropped) -> Line:
    why = "its deadline has passed" if dropped.stage == "expired" else "its caller is gone"
    text = f"{dropped.event_id} dropped before the model: {why}"
    return Line(logging.INFO, "dropped requests", dropped.stage, text, asdict(dropped))


def _reply_lost(lost: signals.ReplyLost) -> Line:
    text = f"the reply to {lost.event_id} cannot be delivered to {lost.reply_to}: {lost.reason}"
    return Line(logging.WARNING, "lost replies", "", text, asdict(lost))


def _handed_back(back: signals.HandedBack) -> Line:
    text = f"{back.count} events handed back to the broker"
    return Line(logging.INFO, "events handed back", "", text, {"handed_back": back.count})


def _revoked(revoked: signals.Revoked) -> Line:
    text = f"{revoked.count} events handed over: another consumer has their partitions"
    return Line(logging.INFO, "events handed over", "", text, {"revoked": revoked.count})


def _flow(flow: signals.Flow) -> Line:
    text = "Phoenix asked to pause" if flow.paused else "Phoenix asked to resume"
    return Line(logging.WARNING, "pauses and resumes", text, text, asdict(flow))


def _warned(warned: signals.Warned) -> Line:
    return Line(logging.WARNING, "warnings", shape(warned.text), warned.text, {})


def _connection(changed: signals.ConnectionChanged) -> Line:
    side, event = changed.side, changed.event
    fields = {"side": side, **asdict(event)}
    group = f"changes of the connection to {side}"
    match event.state:
        case ConnectionState.CONNECTED:
            return Line(logging.INFO, group, "connected", f"{side} connected: {event.address}", fields)
        case ConnectionState.LOST:
            again = f", next try in {event.retry_in_s:.1f} s" if event.retry_in_s is not None else ""
            text = f"{side} lost: {event.address}: {event.reason}{again}"
            return Line(logging.WARNING, group, shape(event.reason), text, fields)
        case ConnectionState.CONNECTING | ConnectionState.CLOSED:
            text = f"{side} {event.state.value}: {event.address}"
            return Line(logging.DEBUG, group, event.state.value, text, fields)


def _circuit(circuit: signals.Circuit) -> Line:
    group, fields = "changes of the circuit", {**asdict(circuit), "circuit": circuit.state}
    if circuit.state == "open":
        text = f"the model is unavailable: {circuit.reason}; events wait, next try in {circuit.retry_in_s:.1f} s"
        return Line(logging.WARNING, group, "open", text, fields)
    return Line(logging.INFO, group, circuit.state, f"model {circuit.address}: circuit {circuit.state}", fields)


def shape(text: str) -> str:
    """Return `text` with `#` for each word that differs between repeats: ids, times, counts."""
    return _WITH_DIGIT.sub("#", text)


_LINES: Mapping[type, Callable[[Any], Line]] = {
    signals.ConnectionChanged: _connection,
    signals.Failed: _failed,
    signals.Retried: _retried,
    signals.Deferred: _held,
    signals.Circuit: _circuit,
    signals.DuplicateDelivery: _duplicate,
    signals.HandedBack: _handed_back,
    signals.Revoked: _revoked,
    signals.Flow: _flow,
    signals.Warned: _warned,
    signals.Dropped: _dropped,
    signals.ReplyLost: _reply_lost,
}
