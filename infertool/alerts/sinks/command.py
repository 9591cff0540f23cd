"""A command that gets each notification as JSON on standard input."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Final

from infertool.alerts.engine import Notification
from infertool.alerts.sinks.port import SinkError, document
from infertool.text import json_text


class CommandSink:
    """Runs `arguments` for each notification, without a shell. It is ended, with what it started, after `timeout_s`."""

    name: Final = "command"
    repeats: Final = False

    def __init__(self, arguments: Sequence[str], timeout_s: float) -> None:
        self._arguments = list(arguments)
        self._timeout_s = timeout_s
        self._running: subprocess.Popen[bytes] | None = None
        self._closed = False

    def send(self, notifications: Sequence[Notification], key: str) -> None:  # noqa: ARG002  (a command has no ids)
        """Run the command. Raises `SinkError` if it cannot be run, fails or takes too long."""
        for notification in notifications:
            self._run(json_text.dumps(document(notification)))

    def close(self) -> None:
        """End the command that runs: nobody would end it at its time limit."""
        self._closed = True
        if (process := self._running) and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _run(self, body: bytes) -> None:
        program = self._arguments[0]
        if self._closed:
            raise SinkError("the consumer stops")
        try:
            process = subprocess.Popen(
                self._arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise SinkError(f"{program} cannot be run: {getattr(error, 'strerror', None) or error}") from None
        self._running = process
        try:
            process.communicate(body, self._timeout_s)
        except subprocess.TimeoutExpired:
            _end(process)
            raise SinkError(f"{program} takes longer than {self._timeout_s:g} s") from None
        if process.returncode:
            raise SinkError(f"{program} failed with exit code {process.returncode}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its group, which is its own. It is not reaped yet, so its number is still its own, too."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()
