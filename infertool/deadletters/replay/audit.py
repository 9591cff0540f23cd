"""The record of a run: JSON lines. An intent is on disk before the broker is told; its outcome follows."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from infertool.deadletters import ids
from infertool.deadletters.replay.decide import Decision, Fate, Plan
from infertool.errors import InfertoolError
from infertool.text.sanitize import printable
from infertool.text.times import iso

_TOLD = frozenset({Fate.REPLAY, Fate.PARK, Fate.KEEP})


class Result(StrEnum):
    """What became of an intent. `DONE` is written as replayed, copied, parked or kept."""

    DONE = "done"
    UNDONE = "undone"
    REFUSED = "refused"
    IN_DOUBT = "in doubt"


_DONE = {Fate.REPLAY: "replayed", Fate.PARK: "parked", Fate.KEEP: "kept"}


class AuditError(InfertoolError):
    """The record cannot be written, so nothing more may be moved. `path` is its file."""

    def __init__(self, path: Path, fault: OSError) -> None:
        super().__init__(
            f"the audit file {path} cannot be written: {fault.strerror or fault}",
            advice="nothing was moved without an intent in it; what lacks an outcome is in doubt; make room, or name "
            "another file",
        )
        self.path = path


class Audit:
    """Appends to `path`. Each letter has a line with its `intent`, and one or more with its `outcome`; the last counts.

    An intent without an outcome is in doubt: the run was killed in between. Look for its `replay_id` then.
    """

    def __init__(self, path: Path, plan: Plan, who: str) -> None:
        self._path = path
        self._plan = plan
        self._who = who
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        except OSError as fault:
            raise AuditError(path, fault) from None
        if _ends_in_a_line(path):
            self._append([b"\n"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # the outcomes; what is lost of them is in doubt
            os.fsync(self._file)
        os.close(self._file)

    def intend(self, decisions: Iterable[Decision], at: float) -> None:
        """Append what is about to be done, and wait for the disk. Raises `AuditError`: nothing may be done then."""
        self._append([self._line(each, {"intent": each.fate}, at) for each in decisions if _is_told(each)])
        self._guard(_sync)

    def note(self, decisions: Iterable[Decision], result: Result, at: float, why: str = "") -> None:
        """Append what became of it. Raises `AuditError`."""
        self._append(
            [
                self._line(each, {"outcome": self._outcome(each, result)}, at, why)
                for each in decisions
                if _is_told(each)
            ]
        )

    def _line(self, decision: Decision, what: dict[str, str], at: float, why: str = "") -> bytes:
        line = {
            "at": iso(at),
            "who": self._who,
            "run": self._plan.run,
            "from": self._plan.queue,
            "to": None if decision.fate is Fate.KEEP else decision.replacement.destination,
            "message_id": decision.letter.message.id,
            "original_id": decision.letter.original_id,
            "event_id": ids.event_id(decision.letter),
            "request_id": ids.request_id(decision.letter) or None,
            "replay_id": decision.replay_id or None,
            **what,
            "why": why or decision.why or None,
        }
        return orjson.dumps({key: value and printable(value) for key, value in line.items()}) + b"\n"

    def _outcome(self, decision: Decision, result: Result) -> str:
        if result is not Result.DONE:
            return result
        return "copied" if decision.fate is Fate.REPLAY and self._plan.copy else _DONE[decision.fate]

    def _append(self, lines: Sequence[bytes]) -> None:
        if lines:
            size = os.fstat(self._file).st_size
            try:
                self._guard(lambda file: _write_all(file, b"".join(lines)))
            except AuditError:
                with contextlib.suppress(OSError):  # no half line may stay; what is no file has no length to cut
                    os.ftruncate(self._file, size)
                raise

    def _guard(self, write: Callable[[int], None]) -> None:
        try:
            write(self._file)
        except OSError as fault:
            raise AuditError(self._path, fault) from None


def _is_told(decision: Decision) -> bool:
    # Of a letter that did not get through, the outcome of its intent tells all.
    return decision.fate in _TOLD and decision.fault is None


def _ends_in_a_line(path: Path) -> bool:
    """Return True if the last line of a file has no end, as a power cut may leave it."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
    except OSError:  # it may be written and not read
        return False


def _sync(file: int) -> None:
    try:
        os.fsync(file)
    except OSError as fault:
        if fault.errno != errno.EINVAL:
            raise
        raise OSError(fault.errno, "it is no file on a disk") from None


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
