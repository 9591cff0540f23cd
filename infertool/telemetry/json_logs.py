"""Standard error as JSON lines: every line is one JSON object, also those of models, libraries and child processes."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, TextIO

from infertool.hangup import Wrapping, keep_stderr, stderr
from infertool.text.sanitize import clean, clean_json, is_terminal

# Maximum wait for the last lines of a process that has ended: a child of it may hold the pipe open. Seconds.
_LAST_LINES_S = 1.0
# What is longer and has no end yet is written as a line: dots of a model, which never ends its line, would be kept for
# ever. Characters; bytes of another process, whose records are lines.
_LONGEST_BEGUN = 8192
_LONGEST_LINE = 1 << 18


class Relay:
    """A thread that forwards the lines of `stream`, and closes it. `fields` are added to each record."""

    def __init__(self, stream: IO[bytes], fields: Mapping[str, Any]) -> None:
        self._stream = stream
        self._fields = fields
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the last line is forwarded, after the end of the process."""
        self._thread.join(_LAST_LINES_S)

    def _run(self) -> None:
        with self._stream:
            while line := self._stream.readline(_LONGEST_LINE):
                # A line that standard error does not accept is lost: the process must not block.
                with contextlib.suppress(OSError, ValueError):
                    self._pass_on(line.decode(errors="replace").rstrip("\r\n"))

    def _pass_on(self, line: str) -> None:
        if is_on():
            pass_on(line, self._fields)
        else:
            stderr().write(f"{clean(line)}\n")
            stderr().flush()


_KEYS = {"time", "level", "logger", "message"}


class Formatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, and the fields of `extra={"fields": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return _line(record.created, record.levelname.lower(), record.name, record.getMessage(), fields)


class Handler(logging.Handler):
    """Writes log records to standard error. One that cannot be written is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        try:
            write(self.format(record))
        except Exception:  # noqa: BLE001  (as logging's own handlers do)
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's)
        """Tell that a record cannot be written, where that can be."""
        with contextlib.suppress(ValueError):
            super().handleError(record)


class Stream(Wrapping):
    """Replaces `sys.stderr`: writes each line as a JSON object, such as the lines that a model prints."""

    def __init__(self, target: TextIO) -> None:
        self.target = target
        # One buffer a thread, so that threads do not mix their lines.
        self._begun = threading.local()

    def write(self, text: str, /) -> int:
        """Write the complete lines; buffer the rest."""
        *lines, rest = (getattr(self._begun, "text", "") + text).split("\n")
        if len(rest) > _LONGEST_BEGUN:
            lines.append(rest)
            rest = ""
        self._begun.text = rest
        self._write(lines)
        return len(text)

    def flush(self) -> None:
        """Write the buffered text, such as a prompt."""
        rest, self._begun.text = getattr(self._begun, "text", ""), ""
        self._write([rest])
        self.target.flush()

    def _write(self, lines: Sequence[str]) -> None:
        for line in filter(None, lines):
            write(_line(time.time(), "info", "stderr", line, {}))

    def fileno(self) -> int:
        """Return the descriptor of the wrapped stream."""
        return self.target.fileno()

    def isatty(self) -> bool:
        """Return False: no line is for a terminal."""
        return False

    def close(self) -> None:
        """Stay open, whoever closes `sys.stderr`."""


def is_on() -> bool:
    """Return True if standard error is JSON lines."""
    return isinstance(stderr(), Stream)


def wrap_stderr() -> None:
    """Replace `sys.stderr` by a stream that writes JSON lines."""
    if not is_on():
        keep_stderr(Stream(sys.stderr))


def write(line: str) -> None:
    """Write a line, which is a JSON object."""
    current = stderr()
    target = current.target if isinstance(current, Stream) else current
    target.write((clean_json(line) if is_terminal(target) else line) + "\n")
    target.flush()


def write_message(level: str, message: str, fields: Mapping[str, Any]) -> None:
    """Write a log record, regardless of the log level."""
    write(_line(time.time(), level, "infertool", message, fields))


def pass_on(line: str, fields: Mapping[str, Any]) -> None:
    """Write a line of another process: a record gets `fields` added, other text becomes a record's message."""
    if not line:
        return
    record = _record(line)
    if record is None:
        write(_line(time.time(), "info", "stderr", line, fields))
    else:
        write(_encoded({**record, **{key: value for key, value in fields.items() if key not in record}}))


def _record(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line) if line.startswith("{") else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.keys() >= _KEYS else None


def _line(seconds: float, level: str, logger: str, message: str, fields: Mapping[str, Any]) -> str:
    return _encoded({"time": _iso(seconds), "level": level, "logger": logger, "message": message, **fields})


def _encoded(document: dict[str, Any]) -> str:
    import orjson  # noqa: PLC0415  (not needed for text logs)

    try:
        return orjson.dumps(document, default=str).decode()
    except TypeError:  # an integer past 64 bits, or a lone surrogate, from a server or a model
        return json.dumps(document, default=str)


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
