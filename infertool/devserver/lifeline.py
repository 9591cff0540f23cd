"""A server process that must not outlive the process that started it."""

from __future__ import annotations

import os
import signal
import threading

_STDIN = 0


def end_with_parent() -> None:
    """Send this process SIGTERM once the parent is gone, however it went.

    The parent starts this process with `stdin=PIPE` and keeps its end open; the system closes it when the parent
    ends. Portable, unlike PR_SET_PDEATHSIG, which is also tied to the parent's thread.
    """
    threading.Thread(target=_await_end_of_input, name="lifeline", daemon=True).start()


def _await_end_of_input() -> None:
    while os.read(_STDIN, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
