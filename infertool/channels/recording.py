"""Recordings of channel events: writing, reading, playing at a chosen speed, and recognising recorded events."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

from infertool.channels.event import ChannelEvent, OnChannelEvents, document, encode
from infertool.errors import InfertoolError, UsageError
from infertool.net.timing import left_s
from infertool.text import json_text

# Maximum of remembered events: only the end of a recording overlaps with live events.
_REMEMBERED = 100_000
_SUCCEEDED = "SUCCESS"
_RESULT = "new_result"

_Key = tuple[str, ...]


class Dedup:
    """Remembers the last events of a recording: results by event id, failures by event id and time.

    A result that was pushed or computed again is a duplicate, and so is a failure that was reported again. A new
    failure of the same event is not.
    """

    def __init__(self) -> None:
        self._known: dict[_Key, None] = {}

    def note(self, events: Iterable[ChannelEvent]) -> None:
        """Remember events of the recording."""
        for key in map(_key, events):
            if key:
                self._known.pop(key, None)
                self._known[key] = None
        for key in list(self._known)[:-_REMEMBERED]:
            del self._known[key]

    def without(self, events: Sequence[ChannelEvent]) -> Sequence[ChannelEvent]:
        """Return the events that are not in the recording. Events without `event_id` are always returned."""
        if not self._known:
            return events
        return [event for event in events if _key(event) not in self._known]


def _key(event: ChannelEvent) -> _Key | None:
    payload = event.payload
    if not isinstance(payload, dict) or not isinstance(event_id := payload.get("event_id"), str):
        return None
    if payload.get("status", _SUCCEEDED if event.event == _RESULT else None) == _SUCCEEDED:
        return event.event, event_id
    return event.event, event_id, _occasion(payload)


def _occasion(payload: Mapping[str, Any]) -> str:
    """Return what distinguishes failures of one event: the time, or the whole payload if it has none."""
    failed_at = payload.get("failed_at")
    if isinstance(failed_at, str):
        return failed_at
    # A server may put the keys into another order.
    return json_text.dumps(json_text.loads_nearest(encode(payload)), orjson.OPT_SORT_KEYS).decode()


STDIN = "-"
_READ_SIZE = 1 << 20
# A longer line is skipped; larger than any frame. Bytes.
_LONGEST = 1 << 27
# A later time (year 5138) cannot be in seconds. Seconds.
_LATEST = 1e11


class RecordError(InfertoolError):
    """A recording cannot be read or written. `path` is as the user typed it."""

    def __init__(self, path: str, what: str, *, advice: str = "") -> None:
        super().__init__(f"the record {path} {what}", advice=advice)
        self.path = path


def line(event: ChannelEvent) -> bytes:
    """Return the JSON line of `event`, without line end."""
    return encode(document(event))


class RecordReader:
    """Reads the events of a file, or of standard input for `-`. Invalid lines are skipped and counted.

    Raises `RecordError`.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == STDIN else path
        self.skipped = 0
        self.count = 0
        try:
            # Not sys.stdin: a thread that blocks in it disturbs the exit of the process.
            self._file = open(0 if path == STDIN else path, "rb", buffering=0, closefd=path != STDIN)  # noqa: SIM115
        except OSError as fault:
            raise RecordError(self.name, f"cannot be read: {fault.strerror}", advice="check the path") from None

    def batches(self, deadline: float | None = None) -> Iterator[list[ChannelEvent]]:
        """Yield the events, one batch a read. Call it once. Raises `RecordError`.

        At `deadline`, in monotonic seconds, it ends: a pipe may stay open without a word.
        """
        rest = b""
        with self._file:
            while self._comes(deadline) and (chunk := self._read()):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LONGEST:
                    rest = b""
                if batch := self._parsed(lines):
                    yield batch
        if batch := self._parsed([rest]):
            yield batch

    def _comes(self, deadline: float | None) -> bool:
        return deadline is None or bool(select.select([self._file], [], [], left_s(deadline))[0])

    def _read(self) -> bytes:
        try:
            return self._file.read(_READ_SIZE) or b""
        except OSError as fault:
            raise RecordError(self.name, f"cannot be read: {fault.strerror}") from None

    def _parsed(self, lines: Iterable[bytes]) -> list[ChannelEvent]:
        batch: list[ChannelEvent] = []
        for each in lines:
            event = _parse(each)
            if event:
                batch.append(event)
            elif each.strip():
                self.skipped += 1
        self.count += len(batch)
        return batch


class Recorder:
    """Appends events to a file, unbuffered. Thread-safe. Raises `RecordError`, also from `write`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            # Were it open for reading, too, a pipe whose reader has ended would hold up each write for ever.
            mode = os.O_WRONLY if Path(path).is_fifo() else os.O_RDWR
            self._file = os.open(path, mode | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._end_cut_line()
        except OSError as fault:
            raise self._unwritable(fault) from None

    def write(self, events: Iterable[ChannelEvent]) -> None:
        """Append `events`."""
        rest = memoryview(b"".join([line(each) + b"\n" for each in events]))
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
        """End the last line if a write was cut short, or an editor left out its line end."""
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
# Maximum size of a batch, so that `stop` takes effect soon.
_BATCH = 500


def parse_speed(text: str) -> float:
    """Return the speed in `text`: 1 is real time, 10 is ten times as fast, max (0) is without waits.

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
    """Plays recorded events in order at their recorded intervals, from a thread of its own.

    `batches` comes from `RecordReader.batches`. Events that are due together are passed to `on_events` together; an
    event older than its predecessor is due at once. `on_end` is called at the end, with the error if reading failed.
    """

    def __init__(
        self,
        batches: Iterable[Sequence[ChannelEvent]],
        *,
        speed: float,
        on_events: OnChannelEvents,
        on_end: Callable[[Exception | None], None],
    ) -> None:
        self._batches = batches
        self._speed = speed
        self._on_events = on_events
        self._on_end = on_end
        self._stopped = threading.Event()
        self._begun: tuple[float, float] | None = None
        self._thread = threading.Thread(target=self._run, name="playback", daemon=True)

    def start(self) -> None:
        """Start the playback."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stop; wait up to `timeout_s` for the thread, which may block on standard input."""
        self._stopped.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failure: Exception | None = None
        try:
            for batch in self._batches:
                self._play(batch)
                if self._stopped.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - passed to the owner, which reports it
            failure = error
        self._on_end(failure)

    def _play(self, batch: Sequence[ChannelEvent]) -> None:
        """Pass on `batch`, each event when it is due."""
        due: list[ChannelEvent] = []
        for event in batch:
            wait_s = self._wait_s(event)
            if due and (wait_s > 0 or len(due) >= _BATCH):
                self._on_events(due)
                due = []
            if self._stopped.is_set() or (wait_s > 0 and self._stopped.wait(wait_s)):
                return
            due.append(event)
        if due:
            self._on_events(due)

    def _wait_s(self, event: ChannelEvent) -> float:
        """Return the time until the event is due, in seconds."""
        if self._speed == AT_ONCE:
            return 0.0
        now = time.monotonic()
        if self._begun is None:
            self._begun = (event.at, now)
        first, began = self._begun
        return (event.at - first) / self._speed - (now - began)
