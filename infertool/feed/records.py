"""A record of what came: a JSON line an arrival, as `tail -o jsonl` prints it.

    {"topic": "public:results", "event": "new_result", "payload": {...}, "at": 1767225600.123}

Beside that a line may hold `source`. The payload of a binary frame comes back as a string.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from infertool import json_text
from infertool.errors import InfertoolError
from infertool.feed.arrival import Arrival
from infertool.feed.encoding import document, encode

STDIN = "-"
_READ_SIZE = 1 << 20
# A longer line is no record: the largest frame there is, and some. Bytes.
_LONGEST = 1 << 27
# A later time (in the year 5138) is not in seconds, and no clock shows it.
_LATEST = 1e11


class RecordError(InfertoolError):
    """A record cannot be read or written. `path` is as the user named it."""

    def __init__(self, path: str, what: str, *, advice: str = "") -> None:
        super().__init__(f"the record {path} {what}", advice=advice)
        self.path = path


def line(arrival: Arrival) -> bytes:
    """Return the line of `arrival`, without its end."""
    return encode(document(arrival))


class RecordReader:
    """The arrivals in a file, or in standard input for `-`. What is no record line is skipped and counted.

    Raises `RecordError`.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == STDIN else path
        self.skipped = 0
        self.count = 0
        try:
            # Not sys.stdin: a thread that waits in it would break the end of the process.
            self._file = open(0 if path == STDIN else path, "rb", buffering=0, closefd=path != STDIN)  # noqa: SIM115
        except OSError as fault:
            raise RecordError(self.name, f"cannot be read: {fault.strerror}", advice="check the path") from None

    def batches(self) -> Iterator[list[Arrival]]:
        """Yield the arrivals, those of one read at a time. Only once. Raises `RecordError`."""
        rest = b""
        with self._file:
            while chunk := self._read():
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LONGEST:
                    rest = b""
                if batch := self._parsed(lines):
                    yield batch
        if batch := self._parsed([rest]):
            yield batch

    def _read(self) -> bytes:
        try:
            return self._file.read(_READ_SIZE) or b""
        except OSError as fault:
            raise RecordError(self.name, f"cannot be read: {fault.strerror}") from None

    def _parsed(self, lines: Iterable[bytes]) -> list[Arrival]:
        batch: list[Arrival] = []
        for each in lines:
            arrival = _parse(each)
            if arrival:
                batch.append(arrival)
            elif each.strip():
                self.skipped += 1
        self.count += len(batch)
        return batch


class Recorder:
    """Appends arrivals to a file, at once; what it holds stays. Safe to use from several threads.

    Raises `RecordError`, also from `write`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._end_cut_line()
        except OSError as fault:
            raise self._unwritable(fault) from None

    def write(self, arrivals: Iterable[Arrival]) -> None:
        """Append `arrivals`."""
        rest = memoryview(b"".join([line(each) + b"\n" for each in arrivals]))
        try:
            with self._lock:
                while rest:
                    rest = rest[os.write(self._file, rest) :]
        except OSError as fault:
            raise self._unwritable(fault) from None

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _end_cut_line(self) -> None:
        """Begin a new line where a write was cut short, or an editor left out the last line's end."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def _unwritable(self, fault: OSError) -> RecordError:
        advice = "make room, or name another file; what was written is kept"
        return RecordError(self._path, f"cannot be written: {fault.strerror}", advice=advice)


class _Line(msgspec.Struct):
    topic: str
    event: str
    payload: msgspec.Raw
    at: float
    source: Any = ""


_decode = msgspec.json.Decoder(_Line).decode


def _parse(text: bytes) -> Arrival | None:
    try:
        entry = _decode(text)
        written = bytes(entry.payload)
        payload = json_text.loads_nearest(written)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, json_text.JsonError):
        return None
    if not 0 <= entry.at <= _LATEST:
        return None
    source = entry.source if isinstance(entry.source, str) else ""
    return Arrival(entry.topic, entry.event, payload, entry.at, source, written)
