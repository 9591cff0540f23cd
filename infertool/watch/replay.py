"""Replaying one dead letter: `infertool replay-dlq`, run as its own process, so that it does what it says it does."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import BinaryIO

from infertool.errors import InfertoolError
from infertool.text.sanitize import clean

# The end of what it says; its lines are short.
_TAIL = 4096
_PROGRAM = (sys.executable, "-m", "infertool")


def command(event_id: str, options: Sequence[str]) -> list[str]:
    """Return the arguments of `infertool` that replay the letter of an event. `options` are the global ones."""
    return [*options, "replay-dlq", f"--id={event_id}", "--yes"]


def shown(arguments: Sequence[str]) -> str:
    """Return the command as it could be typed."""
    return clean(shlex.join(["infertool", *arguments]))


class Replay:
    """The command at work, for as long as it takes: a replay out of a deep queue has to look at all of it.

    It has a session of its own and writes to files, so that it ends well also when the view, or its terminal, ends
    before. Raises `InfertoolError` when it cannot be started.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.text = shown(arguments)
        self._out = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process runs
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [*_PROGRAM, *arguments],
                stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err, start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the id
            raise InfertoolError(f"it could not be run: {error}") from None

    def is_running(self) -> bool:
        """Return whether it goes on."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Have it end in good order, after the transaction it is in. Returns at once."""
        self._process.terminate()

    def progress(self) -> str:
        """Return its newest word; empty before the first."""
        return _last_line(self._err)

    def outcome(self) -> tuple[bool, str]:
        """Return, once it has ended, whether it did its work, and its last line."""
        code = self._process.wait()
        return code == 0, _last_line(self._out if code == 0 else self._err) or f"exit code {code}"


def _last_line(file: BinaryIO) -> str:
    end = file.seek(0, 2)
    file.seek(max(end - _TAIL, 0))
    *_, last = ["", *file.read().decode("utf-8", "replace").split("\n")[:-1]]
    return clean(last.strip())
