"""The crash-loop guard: notes on disk about redelivered events in progress, to find an event that kills the process.

ActiveMQ redelivers the messages of a dead consumer without limit. A first delivery is not noted, so the common case
costs nothing; a redelivered event is noted while it is in progress. When the process dies, the next one reads the note:
the event was in progress at that death, and its redelivery stands for an earlier one. It is dead-lettered on its third
delivery. Where the broker counts deliveries, it must have counted both deaths; the count alone condemns no event, since
a stop of the consumer or a lost connection raises it for every event that was held.

Each process writes its own file and holds a lock on it; a file without a lock belongs to a dead process.
A written line survives the death of its process, so nothing is synced to disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from infertool.consumer.attempt import Event, Failure
from infertool.telemetry.signals import Observe, Warned

# Maximum number of suspects kept. Other consumers may take over their events, so the oldest are dropped.
MOST_SUSPECTS = 10_000
# How often redelivered events make us look for processes that died meanwhile, in seconds.
SCAN_INTERVAL_S = 1.0

# Deaths that condemn an event, each of which was a delivery.
_DEATHS = 2
_CRASH_LOOP = Failure(
    "crash", "CrashLoop", "the consumer died twice while this event was in work; it is not tried again"
)


class CrashGuard:
    """Notes of one consumer of one queue, in `folder`. Thread-safe. A folder that cannot be written only warns."""

    def __init__(self, folder: Path, *, broker: str, queue: str, observe: Observe) -> None:
        digest = hashlib.sha256(f"{broker} {queue}".encode()).hexdigest()[:16]
        self._folder = folder / digest
        self._observe = observe
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._noted: set[Event] = set()
        self._suspects: dict[str, None] = {}
        self._scanned = 0.0
        self._broken = False

    def begin(self, event: Event) -> Failure | None:
        """Note that a redelivered event goes into work, or return why it must not."""
        with self._lock:
            self._scan()
            name = _name(event)
            if name in self._suspects and not _was_delivered_less(event):
                return _CRASH_LOOP
            if event not in self._noted:
                self._noted.add(event)
                self._write("+", name)
            return None

    def end(self, events: Iterable[Event]) -> None:
        """Note that events are settled."""
        with self._lock:
            if not (self._noted or self._suspects):
                return  # no event was redelivered: nothing was noted
            for event in events:
                name = _name(event)
                if event in self._noted:
                    self._noted.discard(event)
                    self._write("-", name)
                if name in self._suspects:
                    del self._suspects[name]
                    self._write("-", name)

    def close(self) -> None:
        """Remove the notes: events still in progress are handed back, not lost to a crash."""
        with self._lock:
            if self._file is not None:
                Path(self._file.name).unlink(missing_ok=True)
                self._file.close()
                self._file = None
                self._broken = True  # a late worker must not start a new file

    def _scan(self) -> None:
        """Take over the notes of processes that died."""
        if time.monotonic() - self._scanned < SCAN_INTERVAL_S:
            return
        self._scanned = time.monotonic()
        try:
            for path in sorted(self._folder.glob("*.notes")):
                self._adopt(path)
        except OSError as error:
            self._give_up(error)

    def _adopt(self, path: Path) -> None:
        try:
            notes = path.open("r+b")
        except FileNotFoundError:
            return  # another consumer took it over first
        with notes:
            try:
                fcntl.flock(notes, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            for name in _open_notes(notes.read()):
                self._suspect(name)
            path.unlink(missing_ok=True)

    def _suspect(self, name: str) -> None:
        self._suspects[name] = None
        self._write("+", name)
        if len(self._suspects) > MOST_SUSPECTS:
            del self._suspects[next(iter(self._suspects))]

    def _write(self, sign: str, name: str) -> None:
        if self._broken:
            return
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(f"{sign}{name}\n".encode())
        except OSError as error:
            self._give_up(error)

    def _open(self) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        notes = (self._folder / f"{os.getpid()}-{uuid.uuid4().hex}.notes").open("xb", buffering=0)
        fcntl.flock(notes, fcntl.LOCK_EX)
        return notes

    def _give_up(self, error: OSError) -> None:
        self._broken = True
        self._observe(Warned(f"the crash guard is off: {self._folder} cannot be used: {error.strerror}"))


def _was_delivered_less(event: Event) -> bool:
    """Return True if the broker counts too few deliveries for two deaths: the suspect is an event like this one."""
    count = event.message.properties.delivery_count
    return count is not None and count < _DEATHS


def _name(event: Event) -> str:
    """Return what is noted of an event: its identity in one line, since an id alone may be another event's, too."""
    source, message_id, sent_at, _body = event.message.identity
    return json.dumps([source, message_id, sent_at, crc32(event.message.body)])


def _open_notes(content: bytes) -> list[str]:
    """Return the names that were in progress. A last line without its end was cut off by the death and is left out.

    Two events may have equal names, so a name is in progress until it was settled as often as it was noted.
    """
    noted: dict[str, int] = {}
    for line in content.decode("ascii", "replace").split("\n")[:-1]:
        name = line[1:]
        noted[name] = noted.get(name, 0) + (1 if line[:1] == "+" else -1)
    return [name for name, count in noted.items() if count > 0]
