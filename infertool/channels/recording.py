"""A record played again, at the pace it was written in or another."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from infertool.channels.event import ChannelEvent, OnChannelEvents, document, encode
from infertool.errors import InfertoolError, UsageError
from infertool.text import json_text

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


def line(arrival: ChannelEvent) -> bytes:
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

    def batches(self) -> Iterator[list[ChannelEvent]]:
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

    def _parsed(self, lines: Iterable[bytes]) -> list[ChannelEvent]:
        batch: list[ChannelEvent] = []
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

    def write(self, arrivals: Iterable[ChannelEvent]) -> None:
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


def _parse(text: bytes) -> ChannelEvent | None:
    try:
        entry = _decode(text)
        written = bytes(entry.payload)
        payload = json_text.loads_nearest(written)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, json_text.JsonError):
        return None
    if not 0 <= entry.at <= _LATEST:
        return None
    source = entry.source if isinstance(entry.source, str) else ""
    return ChannelEvent(entry.topic, entry.event, payload, entry.at, source, written)


AT_ONCE = 0.0
# So that a long record does not become one batch, and `stop` is heard.
_BATCH = 500


def parse_speed(text: str) -> float:
    """Return the factor in `text`: 1 is the pace of the record, 10 is ten times that, max (0) at once.

    Raises `UsageError`.
    """
    try:
        speed = AT_ONCE if text == "max" else float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed < float("inf"):
        raise UsageError(f"{text!r} is no speed", advice="write for example 1, 0.5, 10 or max")
    return speed


class Playback:
    """Hands over recorded arrivals as they came: those of one instant together, in order, from a thread of its own.

    `batches` are what `RecordReader.batches` yields. An arrival older than one before it comes at once. `on_end` is
    called at the end, also when reading failed: then with the error.
    """

    def __init__(
        self,
        batches: Iterable[Sequence[ChannelEvent]],
        *,
        speed: float,
        on_arrivals: OnChannelEvents,
        on_end: Callable[[Exception | None], None],
    ) -> None:
        self._batches = batches
        self._speed = speed
        self._on_arrivals = on_arrivals
        self._on_end = on_end
        self._stopped = threading.Event()
        self._begun: tuple[float, float] | None = None
        self._thread = threading.Thread(target=self._run, name="playback", daemon=True)

    def start(self) -> None:
        """Start to play."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Play nothing more; wait up to `timeout_s` for the thread, which may be waiting for standard input."""
        self._stopped.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failure: Exception | None = None
        try:
            for batch in self._batches:
                self._play(batch)
                if self._stopped.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - told to the owner, who raises it where people see it
            failure = error
        self._on_end(failure)

    def _play(self, batch: Sequence[ChannelEvent]) -> None:
        """Hand over `batch`, each arrival when it is due, those due already together."""
        due: list[ChannelEvent] = []
        for arrival in batch:
            wait_s = self._wait_s(arrival)
            if due and (wait_s > 0 or len(due) >= _BATCH):
                self._on_arrivals(due)
                due = []
            if self._stopped.is_set() or (wait_s > 0 and self._stopped.wait(wait_s)):
                return
            due.append(arrival)
        if due:
            self._on_arrivals(due)

    def _wait_s(self, arrival: ChannelEvent) -> float:
        """Return how long the arrival is to wait still, in seconds."""
        if self._speed == AT_ONCE:
            return 0.0
        now = time.monotonic()
        if self._begun is None:
            self._begun = (arrival.at, now)
        first, began = self._begun
        return (arrival.at - first) / self._speed - (now - began)
