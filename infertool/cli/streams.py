"""Standard output and input while a model runs: output is for our data alone, and there is no input."""

from __future__ import annotations

import io
import os
import sys

from infertool.cli import console

_STDIN, _STDOUT, _STDERR = range(3)


class ModelOutput(io.TextIOBase):
    """Takes the place of `sys.stdout`: what a model prints goes to standard error, as in worker processes."""

    def __init__(self) -> None:
        self.buffer = open(_STDOUT, "wb", buffering=0, closefd=False)  # noqa: SIM115  (as long as we run)

    def write(self, text: str, /) -> int:
        """Write to what standard error is at that moment."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush standard error."""
        sys.stderr.flush()

    def fileno(self) -> int:
        """Return the descriptor of standard output, which leads to standard error."""
        return _STDOUT

    def isatty(self) -> bool:
        """Return True if standard error is a terminal."""
        return sys.stderr.isatty()


def keep_for_data() -> None:
    """Keep standard output for our data, and standard input from everybody, up to the end of this process.

    Descriptors are changed, not only Python's streams: libraries in C write to them, too.
    """
    _open_instead(_STDIN, os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        return
    sys.stdout.flush()
    kept = os.fdopen(os.dup(_STDOUT), "wb")
    console.write_data_to(io.TextIOWrapper(kept, encoding=sys.stdout.encoding, errors=sys.stdout.errors))
    _open_instead(_STDOUT, os.dup(_STDERR))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # who kept this one is heard at once
    sys.stdout = ModelOutput()


def _open_instead(number: int, descriptor: int) -> None:
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
