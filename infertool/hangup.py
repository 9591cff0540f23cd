"""A terminal that is gone: what is written to it fails with EIO, and must not end the work that is in hand."""

from __future__ import annotations

import errno
import io
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Terminal(io.FileIO):
    """Takes what is written, also when nobody shows it any more."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as fault:
            if fault.errno != errno.EIO:
                raise
            return memoryview(data).nbytes


def tolerant(stream: TextIO) -> TextIO:
    """Return a stream to the same terminal to which a write never fails because it is gone; any other as it is."""
    if not isinstance(stream, io.TextIOWrapper) or not stream.isatty():
        return stream
    stream.flush()
    raw = _Terminal(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, line_buffering=True
    )  # fmt: skip


def shield_stderr() -> None:
    """Make standard error tolerant. Not standard output: what is data there must not be lost without a word."""
    sys.stderr = tolerant(sys.stderr)
    # Textual writes its screens there.
    setattr(sys, "__stderr__", sys.stderr)  # noqa: B010  # to the checker it is final
