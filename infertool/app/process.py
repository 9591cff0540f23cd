"""For processes that exist for one consumer or server: they protect their streams, hooks and state from the model.

Only the entry of such a process calls these functions. A program that embeds a consumer keeps its streams and hooks.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from infertool import thread_hooks
from infertool.errors import InfertoolError
from infertool.hangup import Lossy, separate_stderr, stderr
from infertool.models import user_code
from infertool.models.user_code import type_of
from infertool.telemetry.logs import log

if TYPE_CHECKING:
    from infertool.app.consumer import ConsumerApp

_STDIN, _STDOUT, _STDERR = range(3)
# Time for threads of the model, and for its `atexit` functions, after the end of the run. Seconds.
LEFT_OVER_S = 5.0
# Time for the warning after that: standard error may be blocked, too. Seconds.
_TELL_S = 1.0
# Held once the process is to end.
_ending = threading.Lock()


def load(app: ConsumerApp) -> None:
    """Load the model, warm it up, undo the changes that its code makes to the process, and watch threads.

    Raises `ModelLoadError`.
    """
    watch_threads(log.error)
    with user_code.kept():
        app.load()
    with user_code.kept():
        app.warm_up()
    watch_threads(app.fail)  # again: the model may have set a hook of its own


@contextmanager
def ended_in_time() -> Iterator[None]:
    """End the process in time after the block, with the exit code that its end means."""
    code = 1
    try:
        yield
        code = 0
    except InfertoolError as error:
        code = error.exit_code
        raise
    finally:
        end_in_time(code)


def end_in_time(code: int) -> None:
    """End the process with `code` in `LEFT_OVER_S`, if it has not ended by then.

    The interpreter waits without a limit for threads that are no daemons, for calls in executors (`asyncio.to_thread`),
    and for a stream to which another thread writes.
    """
    if not _ending.acquire(blocking=False):
        return
    thread_hooks.restore()
    for delay_s, action in ((LEFT_OVER_S, _tell_left_over), (LEFT_OVER_S + _TELL_S, partial(os._exit, code))):
        timer = threading.Timer(delay_s, action)
        timer.daemon = True
        timer.start()


def _tell_left_over() -> None:
    threads = [each.name for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
    what = (
        f"threads that are no daemons ({', '.join(threads)})"
        if threads
        else "a call in an executor (asyncio.to_thread), or for a stream that is not read"
    )
    log.warning("the process waited for %s; it is ended", what)


def watch_threads(end_run: Callable[[BaseException], None]) -> None:
    """Call `end_run` when a thread of infertool ends with an exception, and log when another thread does.

    Without a thread of infertool, events would wait for ever.
    """

    def ended(death: threading.ExceptHookArgs) -> None:
        error = death.exc_value or death.exc_type()
        if _is_ours(death.exc_traceback):
            end_run(error)
        elif not isinstance(error, SystemExit):
            name = death.thread.name if death.thread else "?"
            log.error(
                "thread %s, which is not infertool's, ended with %s; the run goes on", name, type_of(error),
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


class ModelOutput(io.TextIOBase):
    """Takes the place of `sys.stdout`: text that a model prints goes to standard error, as in worker processes."""

    def __init__(self) -> None:
        self.buffer = Lossy(_STDOUT, "w", closefd=False)

    def write(self, text: str, /) -> int:
        """Write to the standard error of that moment."""
        return stderr().write(text)

    def flush(self) -> None:
        """Flush standard error."""
        stderr().flush()

    def fileno(self) -> int:
        """Return the descriptor of standard output, which leads to standard error."""
        return _STDOUT

    def isatty(self) -> bool:
        """Return True if standard error is a terminal."""
        return stderr().isatty()


def keep_stdout() -> TextIO | None:
    """Return a stream to standard output, None where it is closed; from now on nothing else writes there.

    Text that a model prints goes to standard error, and a model has no input. Lines of infertool go to standard error,
    too, whatever a model makes of `sys.stderr`. Descriptors are changed, not only Python's streams: libraries in C use
    them, too.
    """
    separate_stderr()
    _open_instead(_STDIN, os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        return None
    sys.stdout.flush()
    kept = os.fdopen(os.dup(_STDOUT), "wb")
    stream = io.TextIOWrapper(kept, encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    _open_instead(_STDOUT, os.dup(_STDERR))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a model that kept this stream is read at once
    sys.stdout = ModelOutput()
    return stream


def _open_instead(number: int, descriptor: int) -> None:
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
