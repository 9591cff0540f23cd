"""What follows when a thread ends with an exception: the run ends for one of ours, and goes on for a model's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

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
