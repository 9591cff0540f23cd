"""The exception hook of our processes: what ends one of them unexpectedly is told as everything else is."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import TYPE_CHECKING

from infertool.text.sanitize import clean

if TYPE_CHECKING:
    from types import TracebackType


def say_trace(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write the trace to stderr, escaped as a server's own words may be in it; one record with --log-format json."""
    text = "".join(traceback.format_exception(kind, error, trace)).rstrip("\n")
    # Not imported for this: it is there when standard error is for machines.
    jsonlogs = sys.modules.get("infertool.telemetry.json_logs")
    with contextlib.suppress(OSError):
        if jsonlogs is not None and jsonlogs.is_on():
            fields = {"error_type": kind.__name__, "trace": text}
            jsonlogs.write_message("error", f"{kind.__name__}: {error}", fields)
        else:
            sys.stderr.write("".join([f"{clean(line)}\n" for line in text.split("\n")]))
            sys.stderr.flush()
