"""A process of our own: started by module name, tied to this process, watched by a pidfd, ended with a deadline.

`python -m infertool.workers.process LIFELINE MODULE ARGUMENT...` is the start of each: it ties itself to its parent by
the pipe LIFELINE, then runs MODULE as `python -m MODULE ARGUMENT...` does.
"""

from __future__ import annotations

import fcntl
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import IO


def tie_to_parent(lifeline: int) -> None:
    """Have the kernel end this process (by SIGIO) when the parent's end of the pipe `lifeline` closes.

    The parent's end closes however the parent ends. No thread could do this: a model that hangs in C code holds the
    interpreter lock. `PR_SET_PDEATHSIG` acts already when the thread ends that started the process.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:
        sys.exit("the process that started this one has gone")


class Process:
    """Runs `python -m module arguments`. It inherits `fds` and has no standard input.

    It has a session of its own: Ctrl-C reaches the parent alone, which then stops its processes in order.
    Raises `OSError` if the system cannot start it.
    """

    def __init__(
        self,
        module: str,
        *arguments: object,
        fds: Sequence[int] = (),
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        lifeline, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                # -P: no file in the working folder may take the place of a module.
                [sys.executable, "-P", "-m", "infertool.workers.process", str(lifeline), module, *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env,
                pass_fds=(lifeline, *fds), start_new_session=True,
            )  # fmt: skip
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:
            os.close(self._lifeline)  # this ends the process, if it has begun
            raise
        finally:
            os.close(lifeline)
        self._reaping = threading.Lock()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def stdout(self) -> IO[bytes]:
        """Its standard output, if it was started with a pipe for it."""
        assert self._process.stdout is not None  # noqa: S101  (the owner asked for a pipe)
        return self._process.stdout

    @property
    def stderr(self) -> IO[bytes]:
        """Its standard error, if it was started with a pipe for it."""
        assert self._process.stderr is not None  # noqa: S101  (the owner asked for a pipe)
        return self._process.stderr

    def has_ended(self) -> bool:
        """Return True if the process is gone."""
        return self.wait_end(0)

    def wait_end(self, timeout_s: float) -> bool:
        """Wait until the process has ended; False after `timeout_s`."""
        if self._process.returncode is not None:
            return True
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def exit_code(self) -> int:
        """Wait for the end; return the exit code, or the negative number of the signal that killed the process.

        Processes that it has started in its session, and left behind, are killed.
        """
        with self._reaping:
            if self._process.returncode is None:
                # Killed before it is reaped: until then its number can be no other session's.
                os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
                self.kill()
            return self._process.wait()

    def ending(self) -> str:
        """Wait for the end; return how the process ended, in words."""
        code = self.exit_code()
        if code == -signal.SIGKILL:
            # Only the kernel's log says so.
            return "was killed by SIGKILL (by the kernel if memory ran out; see dmesg)"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        with suppress(ProcessLookupError):  # it has ended
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)

    def kill(self) -> None:
        """End it, and the processes of its session, at once (SIGKILL)."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):  # it was reaped just now
                os.killpg(self.pid, signal.SIGKILL)

    def discard(self) -> None:
        """End it at once, and close the descriptors that belong to it."""
        self.kill()
        self.exit_code()
        os.close(self._lifeline)
        os.close(self.pidfd)


class ConnectedProcess(Process):
    """A process with a socket to this one. The file descriptor of its end is its first argument."""

    def __init__(
        self,
        module: str,
        *arguments: object,
        fds: Sequence[int] = (),
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            super().__init__(module, fd, *arguments, fds=(fd, *fds), stdout=stdout, stderr=stderr, env=env)
        self._poll = select.poll()
        # Its end is watched as well: processes that it forked may keep its end of the socket open.
        for number in (self.socket.fileno(), self.pidfd):
            self._poll.register(number, select.POLLIN)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until it has sent something or has ended; False after `timeout_s`."""
        return bool(self._poll.poll(None if timeout_s is None else timeout_s * 1000))

    def discard(self) -> None:
        """See `Process`."""
        super().discard()
        self.socket.close()


def end_all(processes: Iterable[Process], timeout_s: float) -> None:
    """Wait up to `timeout_s` for processes that were told to end; kill the others; release all."""
    deadline = time.monotonic() + timeout_s
    for process in processes:
        process.wait_end(max(0.0, deadline - time.monotonic()))
        process.discard()


def _run() -> None:
    _, lifeline, module, *arguments = sys.argv
    tie_to_parent(int(lifeline))
    sys.argv[:] = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run()
