"""The lines of a file of requests, and the idempotency key of each."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from infertool.errors import UsageError
from infertool.text import json_text

STDIN: Final = "-"
# A body, as the gateway takes it, unless its settings say otherwise.
LONGEST: Final = 16 * 1024 * 1024
# Room for the end of the line and a byte order mark.
_AROUND: Final = 8
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """A line with a request. `fault` says why it cannot be sent; empty if it can."""

    number: int
    body: bytes
    fault: str = ""


def key(job: str, line: Line) -> str:
    """Return the idempotency key of a line: the same whenever this line of this job is sent."""
    digest = hashlib.sha256(b"%s\0%d\0%s" % (job.encode("utf-8", "surrogateescape"), line.number, line.body))
    return f"submit-{digest.hexdigest()[:40]}"


def job_name(source: str) -> str:
    """Return the name of a job that has none: the file's full path; `-` for standard input."""
    return source if source == STDIN else str(Path(source).resolve())


def opened(source: str) -> BinaryIO:
    """Return the file, or standard input. Raises `UsageError`."""
    if source == STDIN:
        if sys.stdin.isatty():
            raise UsageError("there is nothing to submit", advice="pipe JSON lines to standard input, or name a file")
        # Not sys.stdin: a read under way would hold up the end of the process.
        return io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False))
    try:
        return Path(source).open("rb")
    except OSError as fault:
        raise UsageError(f"{source} cannot be read: {fault.strerror}") from None


def read(file: BinaryIO) -> Iterator[Line]:
    """Yield the lines that are not empty. Raises `OSError`."""
    number = 0
    while text := file.readline(LONGEST + _AROUND):
        number += 1
        is_cut = not text.endswith(b"\n") and _skip_rest(file)
        body = text.removeprefix(_BOM if number == 1 else b"").strip()
        if is_cut or len(body) > LONGEST:
            yield Line(number, b"", f"it has more than {LONGEST:,} bytes")
        elif body:
            yield Line(number, body, _fault(body))


def _skip_rest(file: BinaryIO) -> bool:
    """Read up to the end of the line. Return False if nothing of it is left."""
    found = False
    while rest := file.readline(LONGEST):
        found = True
        if rest.endswith(b"\n"):
            break
    return found


def _fault(body: bytes) -> str:
    try:
        json_text.loads_nearest(body)
    except json_text.JsonError as error:
        return f"it is not JSON: {error}"
    return ""
