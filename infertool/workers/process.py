"""A process of our own at work, and the connection to it."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Pipe
from typing import IO


def end_with_parent(lifeline: int) -> None:
    """Have the kernel end this process (by SIGIO) when the parent's end of the pipe `lifeline` closes.

    No thread could do that: a model that hangs inside C code holds the interpreter lock.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:
        sys.exit("the process that started this one has gone")


class Spawned:
    """Runs `module` with the file descriptors of a connection and of a lifeline (`lifeline.py`) as its arguments.

    Those of `more_fds` follow.

    It has a session of its own: Ctrl-C reaches this process alone, which then stops things in order.
    """

    def __init__(
        self, module: str, *, stdout: int | None = None, stderr: int | None = None, more_fds: Sequence[int] = ()
    ) -> None:
        self.connection, theirs = Pipe()
        lifeline, self._lifeline = os.pipe()
        fds = (theirs.fileno(), lifeline, *more_fds)
        self._process = subprocess.Popen(
            # -P: nothing in the working folder may hide what it imports.
            [sys.executable, "-P", "-m", module, *map(str, fds)],
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, pass_fds=fds, start_new_session=True,
        )  # fmt: skip
        theirs.close()
        os.close(lifeline)
        self._reaping = threading.Lock()
        self.pidfd = os.pidfd_open(self.pid)
        self._poll = select.poll()
        # The process's end is watched as well: what it forked may keep its end of the connection open.
        for fd in (self.connection.fileno(), self.pidfd):
            self._poll.register(fd, select.POLLIN)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def output(self) -> IO[bytes]:
        """What it writes to the one stream that it was started with a pipe for."""
        stream = self._process.stdout or self._process.stderr
        assert stream is not None  # noqa: S101  (the owner asked for a pipe)
        return stream

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until it has said something or has ended; False after `timeout_s`."""
        return bool(self._poll.poll(None if timeout_s is None else timeout_s * 1000))

    def has_ended(self) -> bool:
        """Say whether the process is gone."""
        return self._process.returncode is not None or bool(select.select([self.pidfd], [], [], 0)[0])

    def exit_code(self) -> int:
        """Return its exit code, or the negative number of the signal that killed it, waiting for that.

        What it has started in its session, and left behind, ends as well.
        """
        with self._reaping:
            if self._process.returncode is None:
                # Before it is reaped, since its number is its session's only until then.
                os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
                self.kill()
            return self._process.wait()

    def ending(self) -> str:
        """Return how the process ended, waiting for that."""
        code = self.exit_code()
        if code == -signal.SIGKILL:
            # Nobody else tells: the kernel writes it to its own log only.
            return "was killed by SIGKILL (by the kernel if memory ran out; see dmesg)"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it, and what it has started in its session, at once."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):  # it was reaped just now
                os.killpg(self.pid, signal.SIGKILL)

    def discard(self) -> None:
        """End it at once and release what it holds."""
        self.kill()
        self.exit_code()
        self.connection.close()
        os.close(self._lifeline)
        os.close(self.pidfd)
