"""Log lines on standard error: text for people, JSON for machines. And the observer that writes them."""

from __future__ import annotations

import logging
import sys
import time
from typing import Literal, TextIO

from infertool.link import LinkEvent, LinkState
from infertool.telemetry import observer as o

log = logging.getLogger("infertool")


def clean(text: str) -> str:
    """Return `text` with control characters (ANSI escapes, bidirectional overrides, …) written as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class TextFormatter(logging.Formatter):
    """`12:03:04.567 warning message`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and a trace under it if there is one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock}.{int(record.msecs):03d} {record.levelname.lower():7} {clean(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, message, and the fields a caller put into `extra={"fields": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        import orjson  # noqa: PLC0415  (text logs do not need it)

        document = {
            "time": _iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            document["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(document, default=str).decode()


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment: a live display puts its own there, and keeps its line below."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        self.setStream(sys.stderr)
        super().emit(record)


def set_up(level: str, log_format: Literal["text", "json"]) -> None:
    """Send log lines of `level` and above to standard error."""
    handler = StderrHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(level.upper())


class LogObserver:
    """An observer that writes a log line for what a person on call wants to read later."""

    def __call__(self, happening: o.Happening) -> None:
        """Log what happened."""
        match happening:
            case o.Linked(side, event):
                self._link(side, event)
            case o.Failed(event_id, stage, error_type, error, attempts):
                log.warning(
                    "%s failed at %s after %d attempts: %s: %s",
                    event_id, stage, attempts, error_type, error,
                    extra={"fields": {"event_id": event_id, "stage": stage, "error_type": error_type}},
                )  # fmt: skip
            case o.Retried(event_id, attempt, delay_s, error):
                log.info(
                    "%s failed on attempt %d, tried again in %.2f s: %s", event_id, attempt, delay_s, error,
                    extra={"fields": {"event_id": event_id, "attempt": attempt}},
                )  # fmt: skip
            case o.Held(event_id, delay_s, error):
                log.debug("%s held for %.2f s: %s", event_id, delay_s, error)
            case o.Circuit(address, state, reason, retry_in_s):
                _circuit(address, state, reason, retry_in_s)
            case o.Recognised(event_id):
                log.debug("%s came again; it is known", event_id)
            case o.HandedBack(count):
                log.info("%d events handed back to the broker", count)
            case o.Flow(paused):
                log.warning("Phoenix asked to pause" if paused else "Phoenix asked to resume")
            case o.Warned(text):
                log.warning("%s", text)
            case _:
                pass

    def _link(self, side: str, event: LinkEvent) -> None:
        fields = {"fields": {"side": side, "address": event.address, "epoch": event.epoch}}
        match event.state:
            case LinkState.CONNECTED:
                log.info("%s connected: %s", side, event.address, extra=fields)
            case LinkState.LOST:
                again = f", next try in {event.retry_in_s:.1f} s" if event.retry_in_s is not None else ""
                log.warning("%s lost: %s: %s%s", side, event.address, event.reason, again, extra=fields)
            case LinkState.CONNECTING | LinkState.CLOSED:
                log.debug("%s %s: %s", side, event.state.value, event.address, extra=fields)


def _circuit(address: str, state: str, reason: str, retry_in_s: float) -> None:
    fields = {"fields": {"address": address, "circuit": state}}
    if state == "open":
        log.warning("the model is unavailable: %s; events wait, next try in %.1f s", reason, retry_in_s, extra=fields)
    else:
        log.info("model %s: circuit %s", address, state, extra=fields)
