"""Threads of a consumer. What one of them raises unforeseen ends the run: without it, events would wait for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable

from infertool import thread_hooks
from infertool.errors import InfertoolError

Fail = Callable[[BaseException], None]


def guarded_thread(run: Callable[[], None], name: str, fail: Fail) -> threading.Thread:
    """Return a thread for `run`, not yet started. `fail` gets what `run` raises.

    `threading.excepthook` would not do: it is of the whole process, and a model may replace it.
    """
    thread_hooks.restore()
    return threading.Thread(target=guarded(run, fail), name=name, daemon=True)


def guarded(run: Callable[[], None], fail: Fail) -> Callable[[], None]:
    """Return `run` as a function that does not raise: `fail` gets what it raises."""

    def call() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001  (its thread must not end without a word)
            fail(error)

    return call


def explained(error: BaseException) -> BaseException:
    """Return the error for a person where the system starts no more threads, `error` itself for any other."""
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        clear = InfertoolError(
            "the system starts no more threads for this process",
            advice="raise its limit of threads (ulimit -u, or pids of the container), or lower consume.concurrency",
        )
        clear.__cause__ = error
        return clear
    return error
