"""Appending to an archive, so that what was appended survives a crash and a power cut."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from infertool.deadletters.archive import packing, records
from infertool.deadletters.archive.records import ArchiveError
from infertool.deadletters.letters import key
from infertool.message import Message

# Letters remembered of what was archived: a drain that died had at most a window of them archived and not yet acked.
_RECENT: Final = 10_000
_GROUP_BYTES: Final = 1 << 23
_LOOK_AT: Final = 1 << 16
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ArchiveWriter:
    """Appends to one archive; another process cannot at the same time.

    `found` records were there before, `cut_bytes` of a half-written last one were removed. Raises ArchiveError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = 0
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._known: set[str] = set()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise ArchiveError(path, f"cannot be written: {fault.strerror}") from None
        try:
            self._take_possession()
            self._end = self._last_end()
            self.cut_bytes = os.fstat(self._file).st_size - self._end
            self._check_cut()
            self._cut_back()
            os.fsync(self._file)
        except OSError as fault:
            self.close()
            raise ArchiveError(path, f"cannot be written: {fault.strerror}") from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has(self, message: Message) -> bool:
        """Return True if this very letter, by queue, id and content, is among the last 10 000 of the archive."""
        return key(message) in self._known

    def append(self, messages: Sequence[Message]) -> None:
        """Write and sync to disk. Raises ArchiveError, and the archive is as it was, or was deleted meanwhile."""
        size = 0
        try:
            for records in _groups(messages):
                data = packing.pack(self.path, records)
                self._write(data)
                size += len(data)
            os.fsync(self._file)
        except OSError as fault:
            with contextlib.suppress(OSError):
                self._cut_back()
            advice = "make room and run it again" if fault.errno in _FULL else ""
            raise ArchiveError(self.path, f"cannot be written: {fault.strerror}", advice=advice) from None
        if os.fstat(self._file).st_nlink == 0:  # by a rotation of logs, for example: what was written goes with it
            raise ArchiveError(self.path, "was deleted meanwhile", advice="run it again; what is in the queue stays")
        self._end += size
        self._remember(messages)

    def close(self) -> None:
        """Let others write."""
        os.close(self._file)

    def _take_possession(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise ArchiveError(self.path, "is no regular file, so nothing in it could be kept safe")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ArchiveError(self.path, "another process is writing to it") from None
        sync_folder(self.path.parent)

    def _last_end(self) -> int:
        end = 0
        for batch in records.read(self.path):
            end = batch.end
            self.found += len(batch.messages)
            self._remember(batch.messages)
        return end

    def _check_cut(self) -> None:
        """Refuse to cut off what no drain of ours has left there."""
        rest = os.pread(self._file, _LOOK_AT, self._end)
        if not records.is_cut_record(packing.begin_of(self.path, rest)):
            raise ArchiveError(self.path, "is no archive of messages", advice="choose another file")

    def _cut_back(self) -> None:
        os.ftruncate(self._file, self._end)
        os.lseek(self._file, self._end, os.SEEK_SET)
        if self._lacks_line_end():
            self._end += os.write(self._file, b"\n")

    def _lacks_line_end(self) -> bool:
        """Say whether a plain archive ends without one, as some editors leave it."""
        plain = packing.pack(self.path, b"") == b""
        return plain and self._end > 0 and os.pread(self._file, 1, self._end - 1) != b"\n"

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def _remember(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if len(self._recent) == _RECENT:
                self._known.discard(self._recent[0])
            letter = key(message)
            self._recent.append(letter)
            self._known.add(letter)


def _groups(messages: Sequence[Message]) -> Iterator[bytes]:
    """Yield the records of some messages together, some MiB at a time: letters may be 100 MiB each."""
    encoded: list[bytes] = []
    size = 0
    for message in messages:
        record = records.encode(message)
        encoded.append(record)
        size += len(record)
        if size >= _GROUP_BYTES:
            yield b"".join(encoded)
            encoded, size = [], 0
    if encoded:
        yield b"".join(encoded)


def sync_folder(path: Path) -> None:
    """Have the names in a folder survive a power cut, as the files' contents do. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
