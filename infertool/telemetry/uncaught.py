"""Reports uncaught exceptions in the format of the log: text, or one JSON record."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import TYPE_CHECKING

from infertool.hangup import stderr
from infertool.text.sanitize import clean

if TYPE_CHECKING:
    from types import TracebackType


def say_trace(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write the traceback to stderr: escaped, since it may quote a server; as one record with --log-format json."""
    text = "".join(traceback.format_exception(kind, error, trace)).rstrip("\n")
    # Not imported here: the module is loaded if standard error is JSON lines.
    json_logs = sys.modules.get("infertool.telemetry.json_logs")
    with contextlib.suppress(OSError, ValueError):
        if json_logs is not None and json_logs.is_on():
            fields = {"error_type": kind.__name__, "trace": text}
            json_logs.write_message("error", f"{kind.__name__}: {error}", fields)
        else:
            stderr().write("".join([f"{clean(line)}\n" for line in text.split("\n")]))
            stderr().flush()
