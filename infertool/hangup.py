"""Standard error that is gone: no closed terminal, full disk, or model that closes it, ends the work in hand."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Lossy(io.FileIO):
    """Takes what is written, also when it can be written no more."""

    def write(self, data: Buffer, /) -> int:
        """Write what can be written."""
        written = None
        with suppress(OSError):
            written = super().write(data)
        return memoryview(data).nbytes if written is None else written


def tolerant(stream: TextIO) -> TextIO:
    """Return a stream to the same terminal to which a write never fails because it is gone; any other as it is."""
    return lossy(stream) if isinstance(stream, io.TextIOWrapper) and stream.isatty() else stream


def lossy(stream: TextIO) -> TextIO:
    """Return a stream to the same file to which a write never fails; one that has no descriptor as it is."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return stream
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    with suppress(OSError):
        stream.flush()
    raw = Lossy(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, line_buffering=True
    )  # fmt: skip


class Wrapping(io.TextIOBase):
    """Base class of a stream that stands before standard error, which is its `target`."""

    target: TextIO


_STDERR = 2
_kept: TextIO | io.TextIOBase | None = None
_own: TextIO | None = None


def keep_stderr(stream: TextIO | io.TextIOBase) -> None:
    """Make `stream` standard error, to which `stderr` returns."""
    global _kept  # noqa: PLW0603  (a process has one)
    sys.stderr = _kept = stream


def separate_stderr() -> None:
    """Have `stderr` return a stream of infertool's own from now on, which a model cannot redirect.

    It writes to a copy of the descriptor, since libraries in C are hushed by `os.dup2`.
    """
    global _own  # noqa: PLW0603  (a process has one)
    given = sys.stderr
    old = given.target if isinstance(given, Wrapping) else given
    copy = os.dup(_STDERR)
    _own = own = lossy(os.fdopen(copy, "w", encoding=old.encoding, errors=old.errors, buffering=1, closefd=False))
    if isinstance(given, Wrapping):
        given.target = own
        _own = sys.stderr


def stderr() -> TextIO:
    """Return the stream for lines of infertool: its own, if it has one, or `sys.stderr`; that of a live display first.

    A model's `contextlib.redirect_stderr` on two threads at once leaves a closed or a silent file in place of
    `sys.stderr`. If it is closed, the kept one takes its place.
    """
    if sys.stderr is None or getattr(sys.stderr, "closed", False):
        usable = _kept if _kept and not _kept.closed else None
        keep_stderr(usable or open(_STDERR, "w", buffering=1, errors="backslashreplace", closefd=False))  # noqa: SIM115
    is_live = hasattr(sys.stderr, "rich_proxied_file")
    return sys.stderr if _own is None or is_live else _own


def shield_stderr() -> None:
    """Have no write to standard error fail. Not standard output: what is data there must not be lost without a word."""
    keep_stderr(lossy(sys.stderr))
    # Textual writes its screens there.
    setattr(sys, "__stderr__", sys.stderr)  # noqa: B010  # to the checker it is final
