"""A process of `infertool` that is forked by a server (`tests/support/forkserver.py`), not started anew."""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import IO

from tests.support.forkserver import REPORT

# Only the start of an interpreter heeds these.
_OF_THE_INTERPRETER = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_")


class Forked:
    """One such process, with a pipe for its output; it has the part of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], stderr: IO[bytes] | None) -> None:
        """Start it. Its errors go to `stderr`, or to a pipe, too."""
        self.args = arguments
        self.returncode: int | None = None
        # What it has written to its pipes.
        self._written: dict[IO[bytes] | None, bytes] = {}
        # Here the server says how it ended.
        self._report, report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stdout, output = _pipe()
        self.stderr: IO[bytes] | None = None
        with report, output, Path(os.devnull).open("rb") as nothing:
            if stderr is not None:
                self.pid = _server().fork(arguments, env, (nothing, output, stderr, report))
                return
            self.stderr, errors = _pipe()
            with errors:
                self.pid = _server().fork(arguments, env, (nothing, output, errors, report))

    def poll(self) -> int | None:
        self._has_ended(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._has_ended(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 1e6) -> tuple[bytes, bytes]:
        """Wait for its end; return what it wrote to its pipes. Another call goes on where one took too long."""
        deadline = time.monotonic() + timeout
        pipes = [pipe for pipe in (self.stdout, self.stderr) if pipe and not pipe.closed]
        while pipes:
            ready, _, _ = select.select(pipes, [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout)
            for pipe in ready:
                data = os.read(pipe.fileno(), 1 << 16)
                self._written[pipe] = self._written.get(pipe, b"") + data
                if not data:
                    pipe.close()
                    pipes.remove(pipe)
        self.wait(max(0.0, deadline - time.monotonic()))
        return self._written.get(self.stdout, b""), self._written.get(self.stderr, b"")

    def _has_ended(self, timeout: float | None) -> bool:
        if self.returncode is None and select.select([self._report], [], [], timeout)[0]:
            with closing(self._report):
                self.returncode = os.waitstatus_to_exitcode(*REPORT.unpack(self._report.recv(REPORT.size)))
        return self.returncode is not None


# What `Running` and `infertool` start.
Process = Forked | subprocess.Popen[bytes]


def start(arguments: list[str], env: Mapping[str, str], stderr: IO[bytes] | None = None) -> Process:
    """Start `python -m infertool arguments` with nothing on its standard input; see `Forked`."""
    if _of_the_interpreter(env) == _of_the_interpreter(os.environ):
        return Forked(arguments, env, stderr)
    return subprocess.Popen(
        [sys.executable, "-m", "infertool", *arguments], env=env,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE if stderr is None else stderr,
    )  # fmt: skip


def _of_the_interpreter(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_OF_THE_INTERPRETER)}


def _pipe() -> tuple[IO[bytes], IO[bytes]]:
    ours, theirs = os.pipe()
    return os.fdopen(ours, "rb"), os.fdopen(theirs, "wb")


class _Server:
    """The server of this process, which ends with it, since its socket closes."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._one_at_a_time = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forkserver", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[2],
            )  # fmt: skip

    def fork(self, arguments: list[str], env: Mapping[str, str], files: Iterable[IO[bytes] | socket.socket]) -> int:
        """Return the number of a new process that has `files` as its streams, and the last one for the report."""
        start = {"arguments": arguments, "env": dict(env), "folder": str(Path.cwd())}
        with self._one_at_a_time:
            socket.send_fds(self._socket, [json.dumps(start).encode()], [each.fileno() for each in files])
            return int(self._socket.recv(64))


_first = threading.Lock()


def _server() -> _Server:
    # Tests start processes side by side, and a cache alone would make a server for each of the first ones.
    with _first:
        return _the_server()


@functools.cache
def _the_server() -> _Server:
    return _Server()
