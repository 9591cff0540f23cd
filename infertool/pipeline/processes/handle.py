"""A worker process as its consumer sees it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Pipe

from infertool.errors import ModelLoadError
from infertool.pipeline.processes import wire

# How often a wait for a model that loads looks whether it is still wanted, in seconds.
_LOOK_S = 0.1
_STDERR = 2


class GoneError(Exception):
    """The process has ended, and all it had said was read."""


class Handle:
    """Starts a process and talks to it. Used by one thread at a time; `kill` by any."""

    def __init__(self, order: wire.Order) -> None:
        self._order = order
        self._connection, theirs = Pipe()
        lifeline, self._lifeline = os.pipe()
        fds = (theirs.fileno(), lifeline)
        self._process = subprocess.Popen(
            # -P: nothing in the working folder may hide what the worker imports.
            [sys.executable, "-P", "-m", "infertool.pipeline.processes.child", *map(str, fds)],
            # A session of its own: Ctrl-C reaches the consumer alone, which then stops things in order.
            stdin=subprocess.DEVNULL, stdout=_STDERR, pass_fds=fds, start_new_session=True,
        )  # fmt: skip
        theirs.close()
        os.close(lifeline)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._poll = select.poll()
        for fd in (self._connection.fileno(), self._pidfd):
            self._poll.register(fd, select.POLLIN)
        self._send(wire.encode(order))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_ready(self, is_wanted: Callable[[], bool]) -> str | None:
        """Return the model's name once it is ready, or None when `is_wanted` says no. Raises `ModelLoadError`."""
        while is_wanted():
            if not self._poll.poll(_LOOK_S * 1000):
                continue
            try:
                [answer] = self.answers()
            except GoneError:
                raise ModelLoadError(
                    f"model {self._order.spec} cannot be loaded: the worker process {self.ending()}",
                    spec=self._order.spec,
                    advice="try it in a Python shell",
                ) from None
            if isinstance(answer, wire.Ready):
                return answer.name
            if isinstance(answer, wire.Unfit):
                raise _unfit(self._order.spec, answer)
        return None

    def ask(self, request: wire.Request) -> None:
        """Send a request; whether it arrives is told by the answers."""
        self._send(wire.encode(request))

    def answers(self, timeout_s: float | None = None) -> list[wire.Answer]:
        """Wait for answers and return all that are there; none after `timeout_s`. Raises `GoneError`."""
        # The process's end is watched as well: what it forked may keep its end of the connection open.
        ready = dict(self._poll.poll(None if timeout_s is None else timeout_s * 1000))
        found: list[wire.Answer] = []
        try:
            while self._connection.poll(0):
                found.append(wire.decode_answer(self._connection.recv_bytes()))
        except (EOFError, OSError):
            pass
        if ready and not found:
            raise GoneError
        return found

    def has_ended(self) -> bool:
        """Say whether the process is gone."""
        return self._process.poll() is not None

    def ending(self) -> str:
        """Return how the process ended, waiting for that."""
        code = self._process.wait()
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def closing_error(self, deadline: float) -> str:
        """Wait until it has closed its model, or until `deadline` (monotonic); return what that raised."""
        try:
            while (left_s := deadline - time.monotonic()) > 0:
                for answer in self.answers(left_s):
                    if isinstance(answer, wire.Closed):
                        return answer.error
        except GoneError:
            pass
        return ""

    def kill(self) -> None:
        """End it, and what it has started in its session, at once."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def discard(self) -> None:
        """End it at once and release what it holds."""
        self.kill()
        self._process.wait()
        self._connection.close()
        os.close(self._lifeline)
        os.close(self._pidfd)

    def _send(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except OSError:
            return  # it is gone, which reading will tell


def _unfit(spec: str, answer: wire.Unfit) -> ModelLoadError:
    error = ModelLoadError(answer.what, spec=spec, advice=answer.advice)
    error.add_note(answer.trace)
    return error
