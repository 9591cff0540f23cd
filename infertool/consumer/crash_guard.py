"""The crash-loop guard: notes on disk about redelivered events in progress, to find an event that kills the process.

ActiveMQ redelivers the messages of a dead consumer without limit. A first delivery is not noted, so the common case
costs nothing; a redelivered event is noted while it is in progress. When the process dies, the next one reads the note:
the event is a suspect, one of as many as were in progress. It is tried alone, with no other call of the model in
progress. If the process dies meanwhile, that event is the cause: it is dead-lettered on its next delivery. If not, it
is settled as any other. Where the broker counts deliveries, it must have counted all these deaths; the count alone
condemns no event, since a stop of the consumer or a lost connection raises it for every event that was held.

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
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final
from zlib import crc32

from infertool.consumer.attempt import Event, Failure
from infertool.telemetry.signals import Observe, Warned

# Maximum number of suspects kept. Other consumers may take over their events, so the oldest are dropped.
MOST_SUSPECTS = 10_000
# How often redelivered events make us look for processes that died meanwhile, in seconds.
SCAN_INTERVAL_S = 1.0
# A file of notes is written anew, without those of settled events, after this number of bytes: an event that waits for
# its model is noted at each try.
RENEW_BYTES: Final = 1 << 20

# Deaths of a suspect and of a condemned event, each of which was a delivery. The first, of which no note tells, is
# presumed.
_SUSPECT_DEATHS, _DEATHS = 2, 3
_CRASH_LOOP = Failure(
    "crash",
    "CrashLoop",
    "the consumer died while this event was in work, and again while nothing else was; it is not tried again",
)


class CrashGuard:
    """Notes of one consumer of one queue, in `folder`. Thread-safe. A folder that cannot be written only warns.

    `suspected` are the events here that are to be tried alone, until they are settled.
    """

    def __init__(self, folder: Path, *, broker: str, queue: str, observe: Observe, is_on: bool = True) -> None:
        digest = hashlib.sha256(f"{broker} {queue}".encode()).hexdigest()[:16]
        self._folder = folder / digest
        self._observe = observe
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        # Bytes since the file was begun with what was in progress.
        self._written = 0
        self._noted: set[Event] = set()
        # By name; True for those in progress alone at a death.
        self._suspects: dict[str, bool] = {}
        self.suspected: set[Event] = set()
        self._is_on = is_on
        self._scanned = 0.0
        self._broken = False

    def look(self, events: Iterable[Event]) -> None:
        """Find the suspects among events that were delivered."""
        with self._lock:
            if not self._is_on:
                return
            self._scan()
            if self._suspects:
                self.suspected.update(event for event in events if self._is_suspect(event, _SUSPECT_DEATHS))

    def begin(self, event: Event) -> Failure | None:
        """Note that a redelivered event goes into work, or return why it must not."""
        with self._lock:
            if not self._is_on:
                return None
            self._scan()
            name = _name(event)
            if self._suspects.get(name) and self._is_suspect(event, _DEATHS):
                return _CRASH_LOOP
            if event not in self._noted:
                self._noted.add(event)
                self._write("+", name)
            return None

    def begin_alone(self, event: Event) -> None:
        """Note that an event is tried with nothing else in progress."""
        with self._lock:
            self._write("!", _name(event))

    def end_alone(self, event: Event) -> None:
        """Note that this try has ended."""
        with self._lock:
            self._write("~", _name(event))

    def _is_suspect(self, event: Event, deaths: int) -> bool:
        count = event.message.properties.delivery_count
        return _name(event) in self._suspects and event.message.redelivered and (count is None or count >= deaths)

    def end(self, events: Iterable[Event]) -> None:
        """Note that events are settled."""
        with self._lock:
            if not (self._noted or self._suspects):
                return  # no event was redelivered: nothing was noted
            for event in events:
                name = _name(event)
                self.suspected.discard(event)
                if event in self._noted:
                    self._noted.discard(event)
                    self._write("-", name)
                if name in self._suspects:
                    was_alone = self._suspects.pop(name)
                    self._write("-", name)
                    if was_alone:
                        self._write("~", name)

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
            for name, was_alone in _open_notes(notes.read()).items():
                self._suspect(name, was_alone=was_alone)
            path.unlink(missing_ok=True)

    def _suspect(self, name: str, *, was_alone: bool) -> None:
        if name not in self._suspects:
            self._write("+", name)
        if was_alone and not self._suspects.get(name):
            self._write("!", name)
        self._suspects[name] = was_alone or self._suspects.get(name, False)
        if len(self._suspects) > MOST_SUSPECTS:
            del self._suspects[next(iter(self._suspects))]

    def _write(self, sign: str, name: str) -> None:
        if self._broken:
            return
        try:
            if self._file is None:
                self._file = self._open()
            self._written += self._file.write(f"{sign}{name}\n".encode())
            if self._written > RENEW_BYTES:
                self._file = self._renewed(self._file)
        except OSError as error:
            self._give_up(error)

    def _renewed(self, old: BinaryIO) -> BinaryIO:
        """Return a file with the notes of `old` that are open. A death in between leaves both."""
        old.seek(0)
        noted, alone = _counts(old.read())
        lines = [f"{sign}{name}\n" for sign, counts in (("+", noted), ("!", alone)) for name in (+counts).elements()]
        new = self._open()
        new.write("".join(lines).encode())
        self._written = 0
        Path(old.name).unlink(missing_ok=True)
        old.close()
        return new

    def _open(self) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            notes = (self._folder / f"{os.getpid()}-{uuid.uuid4().hex}.notes").open("x+b", buffering=0)
            fcntl.flock(notes, fcntl.LOCK_EX)
            if os.fstat(notes.fileno()).st_nlink:
                return notes
            notes.close()  # another consumer took it for that of a dead process, before it was locked

    def _give_up(self, error: OSError) -> None:
        self._broken = True
        self._observe(Warned(f"the crash guard is off: {self._folder} cannot be used: {error.strerror}"))


def _name(event: Event) -> str:
    """Return what is noted of an event: its identity in one line, since an id alone may be another event's, too."""
    source, message_id, sent_at, _body = event.message.identity
    return json.dumps([source, message_id, sent_at, crc32(event.message.body)])


def _open_notes(content: bytes) -> dict[str, bool]:
    """Return the names that were in progress, and whether alone."""
    noted, alone = _counts(content)
    return {name: alone[name] > 0 for name, count in noted.items() if count > 0}


def _counts(content: bytes) -> tuple[Counter[str], Counter[str]]:
    """Return how often each name is in progress, and alone. A last line without its end was cut off by a death.

    Two events may have equal names, so a name is in progress until it was settled as often as it was noted.
    """
    noted: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for line in content.decode("ascii", "replace").split("\n")[:-1]:
        counts = noted if line[:1] in "+-" else alone
        counts[line[1:]] += 1 if line[:1] in "+!" else -1
    return noted, alone
