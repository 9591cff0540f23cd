"""Standard output and input while a model runs: output is for our data alone, and there is no input."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from infertool.cli.common import console
from infertool.telemetry.logs import log


def watch_threads(end_run: Callable[[BaseException], None]) -> None:
    """Call `end_run` when a thread of ours ends with an exception, and log when another does.

    Without a thread of ours events would wait for ever. To be called again when a model was loaded: it may have put
    a hook of its own in place.
    """

    def ended(death: threading.ExceptHookArgs) -> None:
        error = death.exc_value or death.exc_type()
        if _is_ours(death.exc_traceback):
            end_run(error)
        elif not isinstance(error, SystemExit):
            name = death.thread.name if death.thread else "?"
            log.error(
                "thread %s, which is not infertool's, ended with %s; the run goes on", name, type(error).__name__,
                exc_info=(type(error), error, death.exc_traceback), extra={"fields": {"thread": name}},
            )  # fmt: skip

    threading.excepthook = ended


def _is_ours(trace: TracebackType | None) -> bool:
    """Return True if the thread was started for a function of infertool."""
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__"))
        if module != threading.__name__:
            return module.startswith("infertool.")
        trace = trace.tb_next
    return False


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
