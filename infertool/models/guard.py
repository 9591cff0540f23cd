"""Guards against what a model's own code does besides its work: it raises anything, and may fork."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from infertool.errors import ModelLoadError

_LONGEST_REASON = 500


_forked = False


def _note_fork() -> None:
    global _forked  # noqa: PLW0603  (a process has one)
    _forked = True


os.register_at_fork(after_in_child=_note_fork)


def end_if_forked() -> None:
    """End this process if it is a copy that a model made by fork. Called after each call of a model's code.

    What a fork is made for, it does without returning to us; a copy that returns would be a second consumer.
    """
    if _forked:
        os._exit(0)


@contextmanager
def guarded(what: str, spec: str, advice: str) -> Iterator[None]:
    """Raise `ModelLoadError` for any exception inside, `SystemExit` too; only Ctrl-C passes."""
    try:
        yield
    except (ModelLoadError, KeyboardInterrupt):
        end_if_forked()
        raise
    except BaseException as error:  # a model's code may raise anything, and none of it may end the program
        end_if_forked()
        raise ModelLoadError(f"model {spec} {what}: {_reason(error)}", spec=spec, advice=advice) from error
    end_if_forked()


def text_of(error: BaseException) -> str:
    """Return what an exception of a model says; the name of its type when it says nothing, or cannot."""
    try:
        return str(error) or type(error).__name__
    except Exception:  # noqa: BLE001  (its own __str__ may raise anything, too)
        return type(error).__name__


def _reason(error: BaseException) -> str:
    text = " ".join(text_of(error).split())
    cut = f"{text[:_LONGEST_REASON]}..." if len(text) > _LONGEST_REASON else text
    return f"{type(error).__name__}: {cut}".rstrip(": ")


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
