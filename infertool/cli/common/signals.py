"""Signals: the first Ctrl-C, SIGTERM or SIGHUP stops a command in order, a second Ctrl-C, or SIGQUIT, at once.

Periodic calls.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from infertool import thread_hooks
from infertool.cli.common import console


def ending() -> list[signal.Signals]:
    """Return the signals that stop a command in order. Without SIGHUP if it is ignored, as by `nohup`."""
    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    return [signal.SIGINT, signal.SIGTERM, *hangup]


@contextmanager
def stopped_by_signals(
    stop: Callable[[], None], notice: str, restore: Callable[[], None] = console.show_cursor
) -> Iterator[None]:
    """On the first signal call `stop` in another thread and print `notice`; on a second SIGINT exit at once.

    SIGQUIT ends the process as it always does. `restore` gives the terminal back before such an immediate end.
    """

    def end() -> None:
        stop()
        if notice:
            with suppress(OSError):
                console.err(notice)

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, second)
        # Not in the handler: the interrupted code may be writing to stderr or hold a lock that `stop` needs.
        thread_hooks.restore()
        threading.Thread(target=end, name="stopping").start()

    def second(number: int, frame: FrameType | None) -> None:
        restore()
        os._exit(console.EXIT_INTERRUPTED)

    def quit_(number: int, frame: FrameType | None) -> None:
        restore()
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGQUIT)

    before = {number: signal.signal(number, first) for number in ending()}
    if signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL:
        before[signal.SIGQUIT] = signal.signal(signal.SIGQUIT, quit_)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is first:  # else a second Ctrl-C must work until the exit
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def repeated(action: Callable[[], None], interval_s: float) -> Iterator[None]:
    """Call `action` from a separate thread every `interval_s` seconds while the block runs."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(interval_s):
            action()

    thread = threading.Thread(target=run, name="repeated", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
