"""Standard error for machines: each line of it is one JSON object, whoever writes it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, TextIO

from infertool.text.sanitize import clean, clean_json, is_terminal

# How long the last words of a process that has ended may take, in seconds: what it left behind may hold the pipe.
_LAST_WORDS_S = 1.0


class Relay:
    """A thread that passes on the lines of `stream`, and closes it. `fields` say in a record whose line it is."""

    def __init__(self, stream: IO[bytes], fields: Mapping[str, Any]) -> None:
        self._stream = stream
        self._fields = fields
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the last line was passed on, after the end of the process."""
        self._thread.join(_LAST_WORDS_S)

    def _run(self) -> None:
        with self._stream:
            for line in self._stream:
                # What standard error does not take is lost: the process must not wait.
                with contextlib.suppress(OSError):
                    self._pass_on(line.decode(errors="replace").rstrip("\r\n"))

    def _pass_on(self, line: str) -> None:
        if is_on():
            pass_on(line, self._fields)
        else:
            sys.stderr.write(f"{clean(line)}\n")
            sys.stderr.flush()


_KEYS = {"time", "level", "logger", "message"}


class Formatter(logging.Formatter):
    """One JSON object a line: time, level, message, and the fields a caller put into `extra={"fields": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return _line(record.created, record.levelname.lower(), record.name, record.getMessage(), fields)


class Handler(logging.Handler):
    """Writes log records to standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        write(self.format(record))


class Stream(io.TextIOBase):
    """Takes the place of `sys.stderr`: makes an object of each line, such as those that a model prints."""

    def __init__(self, target: TextIO) -> None:
        self.target = target
        # Threads that print at the same time do not mix their lines.
        self._begun = threading.local()

    def write(self, text: str, /) -> int:
        """Write the lines that are complete; keep the rest."""
        *lines, rest = (getattr(self._begun, "text", "") + text).split("\n")
        self._begun.text = rest
        self._write(lines)
        return len(text)

    def flush(self) -> None:
        """Write what is kept, such as a question that waits for its answer."""
        rest, self._begun.text = getattr(self._begun, "text", ""), ""
        self._write([rest])
        self.target.flush()

    def _write(self, lines: Sequence[str]) -> None:
        for line in filter(None, lines):
            write(_line(time.time(), "info", "stderr", line, {}))

    def fileno(self) -> int:
        """Return the descriptor of the stream that is wrapped."""
        return self.target.fileno()

    def isatty(self) -> bool:
        """Return False: nothing on it is for a terminal."""
        return False


def is_on() -> bool:
    """Return True if standard error is for machines."""
    return isinstance(sys.stderr, Stream)


def wrap_stderr() -> None:
    """Make `sys.stderr` write JSON objects only."""
    if not is_on():
        sys.stderr = Stream(sys.stderr)


def write(line: str) -> None:
    """Write a line that is a JSON object."""
    target = sys.stderr.target if isinstance(sys.stderr, Stream) else sys.stderr
    target.write((clean_json(line) if is_terminal(target) else line) + "\n")
    target.flush()


def write_message(level: str, message: str, fields: Mapping[str, Any]) -> None:
    """Write a line as if it were logged, whatever the level that is logged."""
    write(_line(time.time(), level, "infertool", message, fields))


def pass_on(line: str, fields: Mapping[str, Any]) -> None:
    """Write a line of another process: with `fields` added if it is a record, as a record's message if it is not."""
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
    import orjson  # noqa: PLC0415  (text logs do not need it)

    try:
        return orjson.dumps(document, default=str).decode()
    except TypeError:  # an integer beyond 64 bits, or half a surrogate pair, from a server or a model
        return json.dumps(document, default=str)


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
