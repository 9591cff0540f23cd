"""The record of what was decided: JSON lines, on disk before the broker is told."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from infertool.deadletter.clock import iso
from infertool.deadletter.decide import Decision, Fate, Plan
from infertool.errors import InfertoolError

_TOLD = frozenset({Fate.REPLAY, Fate.PARK, Fate.KEEP})


class AuditError(InfertoolError):
    """The record cannot be written, so nothing may be moved. `path` is its file."""

    def __init__(self, path: Path, fault: OSError) -> None:
        super().__init__(
            f"the audit file {path} cannot be written: {fault.strerror or fault}",
            advice="nothing was moved without a record; make room, or name another file",
        )
        self.path = path


class Audit:
    """Appends to `path`. A line says what is about to be done; `undone` says of which of those nothing came.

    After a `kill -9` the last lines may name moves that the broker never did: look for their `replay_id`.
    """

    def __init__(self, path: Path, plan: Plan, who: str) -> None:
        self._path = path
        self._plan = plan
        self._who = who
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        except OSError as fault:
            raise AuditError(path, fault) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._file)

    def write(self, decisions: Iterable[Decision], at: float) -> None:
        """Append what is decided, and wait for the disk. Raises `AuditError`."""
        self._append([self._line(each, str(each.fate), at) for each in decisions if each.fate in _TOLD])

    def undone(self, decisions: Iterable[Decision], at: float) -> None:
        """Append that these were not done after all. Raises `AuditError`."""
        self._append([self._line(each, "undone", at) for each in decisions if each.fate in _TOLD])

    def _line(self, decision: Decision, done: str, at: float) -> bytes:
        copied = decision.also is not None and done == Fate.REPLAY
        line = {
            "at": iso(at),
            "who": self._who,
            "run": self._plan.run,
            "from": self._plan.queue,
            "to": None if decision.fate is Fate.KEEP else decision.replacement.destination,
            "original_id": decision.letter.original_id,
            "event_id": decision.letter.event_id,
            "replay_id": decision.replay_id or None,
            "decision": "copy" if copied else done,
            "why": decision.why or None,
        }
        return orjson.dumps({key: _printable(value) for key, value in line.items()}) + b"\n"

    def _append(self, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        size = os.fstat(self._file).st_size
        try:
            _write_all(self._file, b"".join(lines))
            os.fsync(self._file)
        except OSError as fault:
            with contextlib.suppress(OSError):  # no half line may stay; what is no file has no length to cut
                os.ftruncate(self._file, size)
            raise AuditError(self._path, fault) from None


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _printable(value: str | None) -> str | None:
    """Return header text fit for JSON: bytes that were not UTF-8 become U+FFFD."""
    return value and value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
