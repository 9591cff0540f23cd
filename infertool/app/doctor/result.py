"""The result of a check: its status, the value that was measured, one hint, and where the documentation tells more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from infertool.errors import InfertoolError, SettingsError

DOCUMENT: Final = "docs/doctor.md"


class Status(StrEnum):
    """What a check found. SKIP: it does not apply, or what it needs failed."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check returns. `value` is what was measured, for people; `number` the same in `unit`, a base unit.

    `blocked_by` is why the check was not run, if another one is the reason.
    """

    status: Status
    value: str
    hint: str = ""
    number: float | None = None
    unit: str = ""
    blocked_by: str = ""


def ok(value: str, number: float | None = None, unit: str = "") -> Finding:
    """Return the finding that all is well."""
    return Finding(status=Status.OK, value=value, number=number, unit=unit)


def warn(value: str, hint: str, number: float | None = None, unit: str = "") -> Finding:
    """Return the finding of what works now and may not for long."""
    return Finding(status=Status.WARN, value=value, hint=hint, number=number, unit=unit)


def fail(value: str, hint: str, number: float | None = None, unit: str = "") -> Finding:
    """Return the finding of a fault."""
    return Finding(status=Status.FAIL, value=value, hint=hint, number=number, unit=unit)


def skip(reason: str, hint: str = "") -> Finding:
    """Return the finding that there is nothing to check."""
    return Finding(status=Status.SKIP, value=reason, hint=hint)


def failed(error: InfertoolError) -> Finding:
    """Return the finding for an error: what happened, and its advice as the hint."""
    other = "see `infertool config show`" if isinstance(error, SettingsError) else "see the server's log"
    return fail(error.what, error.advice or other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finding, and the check that it is of. `subject` is what was checked, such as a host; empty if there is one."""

    name: str
    subject: str
    finding: Finding
    took_s: float

    @property
    def category(self) -> str:
        """The part of the name before the dot."""
        return self.name.partition(".")[0]

    @property
    def status(self) -> Status:
        """The status of the finding."""
        return self.finding.status

    @property
    def is_blocked(self) -> bool:
        """True if it was not run, because of what another check found."""
        return self.finding.blocked_by != ""

    @property
    def anchor(self) -> str:
        """Where the documentation of the check stands."""
        return f"{DOCUMENT}#{self.name.replace('.', '-').replace('_', '-')}"


def counts(results: Iterable[Result]) -> dict[Status, int]:
    """Return the number of results of each status."""
    counted = Counter(result.status for result in results)
    return {status: counted[status] for status in Status}


def worst(results: Iterable[Result]) -> Status:
    """Return the worst status of `results`; OK where there are none, or skipped ones alone."""
    found = {result.status for result in results}
    return next((status for status in (Status.FAIL, Status.WARN) if status in found), Status.OK)
