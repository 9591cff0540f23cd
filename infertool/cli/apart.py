"""Files of one command that must not be the same: it would write into what it reads."""

from __future__ import annotations

from pathlib import Path

from infertool.errors import UsageError


def check_apart(written: str, target: Path | None, *read: tuple[str, Path | None]) -> None:
    """Raise `UsageError` if the option `written` names a file that another option reads."""
    for option, source in read:
        if target is not None and source is not None and _are_same(target, source):
            raise UsageError(f"{written} {target} is the file of {option}: it would be written into what is read")


def _are_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is yet to be made
        return one.resolve() == other.resolve()
