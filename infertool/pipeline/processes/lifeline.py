"""A process that must not outlive the one that started it."""

from __future__ import annotations

import fcntl
import os
import select
import sys


def end_with_parent(lifeline: int) -> None:
    """Have the kernel end this process (by SIGIO) when the parent's end of the pipe `lifeline` closes.

    No thread could do that: a model that hangs inside C code holds the interpreter lock.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:
        sys.exit("the process that started this one has gone")
