"""What belongs to the whole process, and a model's code may change while it is loaded."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# What we rely on: a broken connection is an error and not the end, a stop is graceful, and workers end with us.
_SIGNALS = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGIO, signal.SIGCHLD)


@contextmanager
def kept() -> Iterator[None]:
    """Put back, after the block, what infertool itself relies on. Call it in the main thread."""
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    recursion_limit, timeout_s = sys.getrecursionlimit(), socket.getdefaulttimeout()
    streams, hooks = (sys.stdout, sys.stderr), (sys.excepthook, sys.unraisablehook)
    root = logging.getLogger()
    log_handlers, log_level = list(root.handlers), root.level
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
        sys.setrecursionlimit(max(recursion_limit, sys.getrecursionlimit()))
        socket.setdefaulttimeout(timeout_s)
        sys.stdout, sys.stderr = streams
        sys.excepthook, sys.unraisablehook = hooks
        root.handlers[:] = log_handlers
        root.setLevel(log_level)
