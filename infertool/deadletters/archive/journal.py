"""Which messages of an archive were sent, so that a second run does not send them again.

It lies next to the archive, as `FILE.journal`: JSON lines, synced to disk. A batch is noted before it is sent and again
once the broker has confirmed it; what stands only as `sending` was in work when a run died, and may have been sent.
A letter is its queue, its id and a digest of its content (`identity.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import orjson

from infertool.deadletters.archive.writer import sync_folder
from infertool.errors import InfertoolError

_VERSION: Final = 2
_MARK: Final = "infertool_journal"
_SENDING: Final = "sending"
_SENT: Final = "sent"
_UNSENT: Final = "unsent"


class JournalError(InfertoolError):
    """The journal cannot be read or written, so nothing more may be sent.

    `unrecorded` letters were sent and confirmed, and the journal does not know it.
    """

    def __init__(self, path: Path, what: str, *, advice: str = "", unrecorded: int = 0) -> None:
        super().__init__(f"the journal {path} {what}", advice=advice)
        self.path = path
        self.unrecorded = unrecorded


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

    def has(self, letter: str) -> bool:
        """Return True if the letter was sent."""
        return letter in self._sent

    def sending(self, letters: Sequence[str]) -> None:
        """Note what is about to be sent. Raises JournalError; nothing may be sent then."""
        self._append(_SENDING, letters)

    def sent(self, letters: Sequence[str]) -> None:
        """Note what the broker confirmed. Raises JournalError: the next run takes these for letters in doubt."""
        self._append(_SENT, letters)
        self._note(_SENT, letters)

    def unsent(self, letters: Sequence[str]) -> None:
        """Note what was not sent after all. Raises JournalError."""
        self._append(_UNSENT, letters)
        self._note(_UNSENT, letters)

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
            kind = next((kind for kind in (_SENT, _SENDING, _UNSENT) if kind in entry), "")
            letters = [str(each) for each in entry.get(kind, [])]
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
            raise JournalError(self.path, f"is damaged in line {number}", advice=advice) from None
        if version != _VERSION:
            what = f"is of version {version!r}; this infertool knows version {_VERSION}"
            raise JournalError(self.path, what, advice="finish with the infertool that wrote it, or move it away")
        if not kind:
            raise JournalError(self.path, f"is damaged in line {number}", advice=advice)
        self._note(kind, letters)

    def _note(self, kind: str, letters: Iterable[str]) -> None:
        if kind == _SENDING:
            self._doubtful.update(each for each in letters if each not in self._sent)
            return
        self._doubtful.difference_update(letters)
        if kind == _SENT:
            self._sent.update(letters)

    def _append(self, kind: str, letters: Sequence[str]) -> None:
        if not letters:
            return
        data = orjson.dumps({_MARK: _VERSION, kind: list(letters)}) + b"\n"
        begin = os.lseek(self._file, 0, os.SEEK_CUR)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as fault:
            with contextlib.suppress(OSError):  # half a line at its end is not read
                os.ftruncate(self._file, begin)
                os.lseek(self._file, begin, os.SEEK_SET)
            raise self._unusable(fault, len(letters) if kind == _SENT else 0) from None

    def _unusable(self, fault: OSError, unrecorded: int = 0) -> JournalError:
        what = f"cannot be written: {fault.strerror}"
        advice = "make room, or copy the archive"
        if unrecorded:
            what += f", so it does not know of the last {unrecorded} letters, which were sent and confirmed"
            advice = "make room; the next run would send those again"
        return JournalError(self.path, what, advice=advice, unrecorded=unrecorded)
