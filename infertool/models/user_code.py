"""Runs a model's code safely: any exception, forks, changed process state; and short tracebacks of its errors."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import socket
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, TracebackType

from infertool.errors import ModelLoadError, ModelUnavailableError
from infertool.secret import MASK

_LONGEST_REASON = 500
# Maximum of a group's members whose messages are told.
_MOST_NAMED = 5


_forked = False


def _note_fork() -> None:
    global _forked  # noqa: PLW0603  (a process has one)
    _forked = True


os.register_at_fork(after_in_child=_note_fork)


def end_if_forked() -> None:
    """End this process if it is a fork made by a model's code. Called after each call of a model's code.

    A fork does its work without returning to us; one that returns would act as a second consumer.
    """
    if _forked:
        os._exit(0)


@contextmanager
def guarded(what: str, spec: str, advice: str) -> Iterator[None]:
    """Raise `ModelLoadError` for any exception inside, including `SystemExit`; only `KeyboardInterrupt` passes."""
    try:
        yield
    except (ModelLoadError, KeyboardInterrupt):
        end_if_forked()
        raise
    except BaseException as error:  # a model's code may raise anything, which must not end the program
        end_if_forked()
        raise ModelLoadError(f"model {spec} {what}: {_reason(error)}", spec=spec, advice=advice) from error
    end_if_forked()


# Maximum of members looked at in a group of exceptions.
_MOST_MEMBERS = 100


def members_of(error: BaseException) -> list[BaseException]:
    """Return the exceptions in a group, also in the groups in it; of any other exception, itself."""
    found: list[BaseException] = []
    left = [error]
    while left and len(found) < _MOST_MEMBERS:
        current = left.pop()
        if isinstance(current, BaseExceptionGroup):
            left += reversed(current.exceptions)
        else:
            found.append(current)
    return found


def type_of(error: BaseException) -> str:
    """Return the name of an exception's type; that of a group contains its members' types, or is the one they share."""
    names = sorted({type(each).__name__ for each in members_of(error)})
    return names[0] if len(names) == 1 else f"{type(error).__name__}({', '.join(names)})"[:LONGEST_LINE]


# Limits on the wait that a model asks for. Without the lower one, held events would keep a core busy. Seconds.
SHORTEST_HOLD_S = 0.1
LONGEST_HOLD_S = 86_400.0


def hold_of(error: BaseException) -> float | None:
    """Return for how long an event is to be held, in seconds; None unless the model, or all of a group, is away."""
    members = members_of(error)
    waits_s = [_wait_s(each) for each in members if isinstance(each, ModelUnavailableError)]
    return max(waits_s) if len(waits_s) == len(members) else None


def _wait_s(error: ModelUnavailableError) -> float:
    try:
        asked_s = float(error.retry_after_s)  # it may be the text of a header
    except (TypeError, ValueError, OverflowError):
        asked_s = math.nan
    if math.isnan(asked_s):
        asked_s = ModelUnavailableError.retry_after_s
    return min(max(asked_s, SHORTEST_HOLD_S), LONGEST_HOLD_S)


def text_of(error: BaseException) -> str:
    """Return the message of a model's exception; its type's name if the message is empty or cannot be made.

    If members of a group differ, it is the group's own message and theirs; else it is theirs.
    """
    members = members_of(error)
    texts = list(dict.fromkeys(f"{type(each).__name__}: {_message(each)}" for each in members[:_MOST_NAMED]))
    return _message(members[0]) if len(texts) == 1 else f"{_message(error)}: {'; '.join(texts)}"


def _message(error: BaseException) -> str:
    try:
        return str(error).strip() or type(error).__name__
    except BaseException:  # noqa: BLE001  (its __str__ may raise anything)
        return type(error).__name__


def _reason(error: BaseException) -> str:
    text = " ".join(text_of(error).split())
    cut = f"{text[:_LONGEST_REASON]}..." if len(text) > _LONGEST_REASON else text
    return f"{type_of(error)}: {cut}".rstrip(": ")


# Handlers that infertool relies on: a broken pipe is an error, a stop is graceful, workers end with their parent.
_SIGNALS = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGIO, signal.SIGCHLD)


@contextmanager
def kept() -> Iterator[None]:
    """Restore process state that infertool relies on, after the block. Call it in the main thread."""
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
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
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        sys.setrecursionlimit(max(recursion_limit, sys.getrecursionlimit()))
        socket.setdefaulttimeout(timeout_s)
        sys.stdout, sys.stderr = streams
        sys.excepthook, sys.unraisablehook = hooks
        root.handlers[:] = log_handlers
        root.setLevel(log_level)


# Maximum of frames shown of one exception, those nearest to its origin; a recursion has a thousand.
MOST_FRAMES = 12
# Maximum of exceptions shown of a chain (`raise ... from`) or a group, the latest first.
LONGEST_CHAIN = 4
# Maximum length of a frame, and of an exception's message. Characters.
LONGEST_LINE = 300
# Maximum size of the whole text: it becomes a header, where escapes take two bytes and a line at most 10 KiB. Bytes.
MOST_BYTES = 4096

_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_PACKAGES = {os.path.join(sysconfig.get_path(name), "") for name in ("purelib", "platlib")}  # noqa: PTH118


def traceback_of(error: BaseException) -> str:
    """Return the model's frames of `error` and its causes, the latest call last; "" if there are none.

    Of a group, the frames of its first member come first, then its own, then those of its other members.
    """
    lines: list[str] = []
    for relation, each in _related(error):
        frames = list(_frames(each.__traceback__))
        if relation:
            text = _PASSWORD.sub(rf"\1{MASK}@", " ".join(_message(each).split()))[:LONGEST_LINE]
            lines.append(f"{relation} {type(each).__name__}: {text}")
        if len(frames) > MOST_FRAMES:
            lines.append(f"... {len(frames) - MOST_FRAMES} more")
        lines += frames[-MOST_FRAMES:]
    return _cut("\n".join(lines))


def _related(error: BaseException) -> Iterator[tuple[str, BaseException]]:
    """Yield `error`, its cause, that one's cause, and so on, each with its relation to what comes before it."""
    left: list[tuple[str, BaseException]] = [("", error)]
    opened: set[int] = set()
    seen: set[int] = set()
    while left and len(seen) < LONGEST_CHAIN:
        relation, current = left.pop()
        if isinstance(current, BaseExceptionGroup) and id(current) not in opened:
            opened.add(id(current))
            first, *others = current.exceptions
            left += [("beside", each) for each in reversed(others)]
            if current.__traceback__:  # it was raised, and not only put into another one
                left.append(("member of", current))
            left.append((relation, first))
        elif id(current) not in seen:
            seen.add(id(current))
            yield relation, current
            cause = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
            if cause is not None:
                left.append(("caused by", cause))


def _frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        code = trace.tb_frame.f_code
        if not is_ours(trace.tb_frame.f_globals.get("__name__")):
            yield frame_text(code, trace.tb_lineno)
        trace = trace.tb_next


def frame_text(code: CodeType, line: int | None) -> str:
    """Return file, line and function of a frame of the model's code."""
    return f"{_short(code.co_filename)}:{line} in {code.co_qualname}"[:LONGEST_LINE]


def is_ours(module: object) -> bool:
    """Return True if a frame of the module with this name is no part of the model's code."""
    return module == "infertool" or (isinstance(module, str) and module.startswith("infertool."))


def _short(path: str) -> str:
    """Return a file's path relative to the package folder or the working folder, if it is inside."""
    for folder in (*_PACKAGES, _working_folder()):
        if path.startswith(folder) and folder != os.sep:
            return path[len(folder) :]
    return path


def _working_folder() -> str:
    try:
        return os.path.join(os.getcwd(), "")  # noqa: PTH109, PTH118
    except OSError:
        return os.sep  # the folder was removed


def _cut(text: str) -> str:
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= MOST_BYTES else encoded[: MOST_BYTES - 3].decode("utf-8", "ignore") + "..."
