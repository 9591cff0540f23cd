"""Replays one dead letter by running `infertool replay-dlq` as a process: exactly the command that is shown."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import BinaryIO

from infertool.errors import InfertoolError
from infertool.text.sanitize import clean

# Bytes read from the end of the output; its lines are short.
_TAIL = 4096
# Interval of the checks of a running replay. Seconds.
_POLL_S = 0.2
_PROGRAM = (sys.executable, "-m", "infertool")


def command(event_id: str, options: Sequence[str]) -> list[str]:
    """Return the arguments of `infertool` that replay an event's dead letter. `options` are the global ones."""
    return [*options, "replay-dlq", f"--id={event_id}", "--yes"]


def shown(arguments: Sequence[str]) -> str:
    """Return the command as a user would type it."""
    return clean(shlex.join(["infertool", *arguments]))


class Replay:
    """The running command. It may take long: it reads the whole queue.

    It has a session of its own and writes to files, so that it finishes properly even if the view or its terminal ends
    first. Raises `InfertoolError` if it cannot be started.
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
        """Return True while the process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask it to stop after its current transaction. Returns at once."""
        self._process.terminate()

    async def follow(self, on_progress: Callable[[str], None]) -> tuple[bool, str]:
        """Report each new line on stderr until the process ends. Return True if it succeeded, and its last line.

        It polls, since the view could not exit before a thread that waits.
        """
        shown = ""
        while self.is_running():
            await asyncio.sleep(_POLL_S)
            if (progress := _last_line(self._err)) and progress != shown:
                shown = progress
                on_progress(progress)
        code = self._process.wait()
        return code == 0, _last_line(self._out if code == 0 else self._err) or f"exit code {code}"


def _last_line(file: BinaryIO) -> str:
    end = file.seek(0, 2)
    file.seek(max(end - _TAIL, 0))
    *_, last = ["", *file.read().decode("utf-8", "replace").split("\n")[:-1]]
    return clean(last.strip())
