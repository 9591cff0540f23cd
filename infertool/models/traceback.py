"""Where in a model's code an exception came from, in few lines: no code, no values of variables, none of our frames."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterator
from types import TracebackType

from infertool.models.guard import text_of
from infertool.secret import MASK

# Frames shown of one exception, those nearest to its origin; a recursion has a thousand.
MOST_FRAMES = 12
# Exceptions shown of a chain (`raise ... from`), the latest first.
LONGEST_CHAIN = 4
# Characters of a frame, and of what an exception in the chain says.
LONGEST_LINE = 300
# Bytes of it all: it goes into a header, where an escaped character takes two, and a line has at most 10 KiB.
MOST_BYTES = 4096

_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_PACKAGES = {os.path.join(sysconfig.get_path(name), "") for name in ("purelib", "platlib")}  # noqa: PTH118


def traceback_of(error: BaseException) -> str:
    """Return the model's frames of `error` and of what caused it, the latest call last; "" when there are none."""
    lines: list[str] = []
    for position, each in enumerate(_chain(error)):
        frames = list(_frames(each.__traceback__))
        if position:
            said = _PASSWORD.sub(rf"\1{MASK}@", " ".join(text_of(each).split()))[:LONGEST_LINE]
            lines.append(f"caused by {type(each).__name__}: {said}")
        if len(frames) > MOST_FRAMES:
            lines.append(f"... {len(frames) - MOST_FRAMES} more")
        lines += frames[-MOST_FRAMES:]
    return _cut("\n".join(lines))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, its cause, the cause of that, ..."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < LONGEST_CHAIN:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        code = trace.tb_frame.f_code
        if not _is_ours(trace.tb_frame.f_globals.get("__name__")):
            yield f"{_short(code.co_filename)}:{trace.tb_lineno} in {code.co_qualname}"[:LONGEST_LINE]
        trace = trace.tb_next


def _is_ours(module: object) -> bool:
    return module == "infertool" or (isinstance(module, str) and module.startswith("infertool."))


def _short(path: str) -> str:
    """Return a file's path from the folder of packages or the working folder, if it is in there."""
    for folder in (*_PACKAGES, _working_folder()):
        if path.startswith(folder) and folder != os.sep:
            return path[len(folder) :]
    return path


def _working_folder() -> str:
    try:
        return os.path.join(os.getcwd(), "")  # noqa: PTH109, PTH118
    except OSError:
        return os.sep  # it was removed


def _cut(text: str) -> str:
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= MOST_BYTES else encoded[: MOST_BYTES - 3].decode("utf-8", "ignore") + "..."
