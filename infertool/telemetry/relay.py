"""What a process of ours writes: passed on to standard error line by line, as records with --log-format json."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any

from infertool.printable import clean
from infertool.telemetry import jsonlogs

# How long the last words of a process that has ended may take, in seconds: what it left behind may hold the pipe.
_LAST_WORDS_S = 1.0


class Relay:
    """A thread that passes on the lines of `stream`, and closes it. `fields` say in a record whose line it is."""

    def __init__(self, stream: IO[bytes], fields: Mapping[str, Any]) -> None:
        self._stream = stream
        self._fields = fields
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the last line was passed on, after the end of the process."""
        self._thread.join(_LAST_WORDS_S)

    def _run(self) -> None:
        with self._stream:
            for line in self._stream:
                # What standard error does not take is lost: the process must not wait.
                with contextlib.suppress(OSError):
                    self._pass_on(line.decode(errors="replace").rstrip("\r\n"))

    def _pass_on(self, line: str) -> None:
        if jsonlogs.is_on():
            jsonlogs.pass_on(line, self._fields)
        else:
            sys.stderr.write(f"{clean(line)}\n")
            sys.stderr.flush()
