"""Which messages of an archive were sent, so that a second run does not send them again.

It lies next to the archive, as `FILE.journal`: JSON lines, synced to disk. A batch is noted before it is sent and again
once the broker has confirmed it; what stands only as `sending` was in work when a run died, and may have been sent.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import orjson

from infertool.deadletter.archiving import sync_folder
from infertool.errors import InfertoolError

_VERSION: Final = 1
_MARK: Final = "infertool_journal"
_SENDING: Final = "sending"
_SENT: Final = "sent"
_REFUSED: Final = "refused"


class JournalError(InfertoolError):
    """The journal cannot be read or written, so nothing may be sent."""

    def __init__(self, path: Path, what: str, *, advice: str = "") -> None:
        super().__init__(f"the journal {path} {what}", advice=advice)
        self.path = path


class Journal:
    """The journal of one archive; another process cannot write it at the same time. Raises JournalError."""

    def __init__(self, archive: Path) -> None:
        self.path = archive.with_name(f"{archive.name}.journal")
        self._sent: set[str] = set()
        self._doubtful: set[str] = set()
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise self._unusable(fault) from None
        try:
            self._lock()
            self._load()
            sync_folder(self.path.parent)
        except OSError as fault:
            self.close()
            raise self._unusable(fault) from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def in_doubt(self) -> int:
        """How many were in work when an earlier run died: they may have been sent, and are sent again."""
        return len(self._doubtful)

    def has(self, message_id: str) -> bool:
        """Say whether the message was sent."""
        return message_id in self._sent

    def sending(self, ids: Sequence[str]) -> None:
        """Note what is about to be sent. Raises JournalError; nothing may be sent then."""
        self._append(_SENDING, ids)

    def sent(self, ids: Sequence[str]) -> None:
        """Note what the broker confirmed. Raises JournalError: these stay in doubt."""
        self._append(_SENT, ids)
        self._note(_SENT, ids)

    def refused(self, ids: Sequence[str]) -> None:
        """Note what the broker refused: it was not sent. Raises JournalError."""
        self._append(_REFUSED, ids)
        self._note(_REFUSED, ids)

    def close(self) -> None:
        """Let others write."""
        os.close(self._file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise JournalError(self.path, "is in use: another run sends this archive") from None

    def _load(self) -> None:
        end = 0
        with os.fdopen(os.dup(self._file), "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break  # cut short by a crash; what it was about to say is in doubt or was not begun
                self._read(line, number)
                end += len(line)
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)

    def _read(self, line: bytes, number: int) -> None:
        advice = "repair it; without it everything is sent again"
        try:
            entry: Any = orjson.loads(line)
            version = entry[_MARK]
            kind = next(kind for kind in (_SENT, _SENDING, _REFUSED) if kind in entry)
            ids = [str(each) for each in entry[kind]]
        except (orjson.JSONDecodeError, KeyError, TypeError, StopIteration):
            raise JournalError(self.path, f"is damaged in line {number}", advice=advice) from None
        if version != _VERSION:
            raise JournalError(self.path, f"is of version {version!r}; this infertool knows version {_VERSION}")
        self._note(kind, ids)

    def _note(self, kind: str, ids: Iterable[str]) -> None:
        if kind == _SENDING:
            self._doubtful.update(each for each in ids if each not in self._sent)
            return
        self._doubtful.difference_update(ids)
        if kind == _SENT:
            self._sent.update(ids)

    def _append(self, kind: str, ids: Sequence[str]) -> None:
        data = orjson.dumps({_MARK: _VERSION, kind: list(ids)}) + b"\n"
        begin = os.lseek(self._file, 0, os.SEEK_CUR)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as fault:
            os.ftruncate(self._file, begin)
            os.lseek(self._file, begin, os.SEEK_SET)
            raise self._unusable(fault) from None

    def _unusable(self, fault: OSError) -> JournalError:
        return JournalError(self.path, f"cannot be written: {fault.strerror}", advice="make room, or copy the archive")
