"""`python -m tests.support.forkserver SOCKET`: imports `infertool` once, then forks for each start that is asked for.

A run starts thousands of processes of `infertool`, and the import is most of the CPU time of a short one. What is
forked has a number, streams, an environment and a working folder of its own, and ends as an interpreter ends. Its
parent is this process, which has no thread. The other side is `tests/support/forked.py`.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass

from infertool.models import user_code

# What many commands import when they are used; not what few of them need and takes long, such as numpy and textual.
PRELOADED = (
    "infertool.cli.main", "infertool.settings.display", "infertool.app.consumer", "infertool.app.replicas.supervisor",
    "infertool.brokers.stomp.adapter", "infertool.brokers.stomp.broker", "infertool.publishers.phoenix",
    *(f"infertool.cli.{name}.run" for name in (
        "alerts", "call", "consume", "demo", "dev", "doctor", "drain_dlq", "gateway", "loadgen", "peek_dlq", "rabbitmq",
        "replay_dlq", "serve_model", "submit", "tail",
    )),
    # Each `--where` and each rule of alerts needs it: 0.12 s of CPU time.
    "cel",
)  # fmt: skip
# How a process ended, as `waitpid` tells it.
REPORT = struct.Struct("i")
MAX_REQUEST = 1 << 20
# The streams of a new process, then where its end is reported.
DESCRIPTORS = 4


@dataclass(frozen=True, slots=True)
class Start:
    """What a process is started with."""

    arguments: list[str]
    env: dict[str, str]
    folder: str

    def run(self) -> None:
        """Do what `python -m infertool arguments` does."""
        # This fork is no model's.
        user_code._forked = False
        os.environ.clear()
        os.environ.update(self.env)
        time.tzset()
        os.chdir(self.folder)
        sys.path[0] = self.folder
        sys.argv[:] = ["-m", *self.arguments]
        runpy.run_module("infertool", run_name="__main__", alter_sys=True)


class Server:
    """Forks for each request that comes at `control`, and reports how what it forked has ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        # By process, where its end is reported.
        self._reports: dict[int, socket.socket] = {}
        self._child_ended, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> Start | None:
        """Returns in each process that is forked, and, with None, when the socket is closed."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        while True:
            ready, _, _ = select.select([self._control.fileno(), self._child_ended], [], [])
            if self._child_ended in ready:
                os.read(self._child_ended, 1 << 16)
                self._report_ends()
            if self._control.fileno() in ready:
                request, descriptors, _, _ = socket.recv_fds(self._control, MAX_REQUEST, DESCRIPTORS)
                if not request:
                    return None
                if pid := os.fork():
                    self._note(pid, *descriptors)
                else:
                    self._become(*descriptors)
                    return Start(**json.loads(request))

    def _note(self, pid: int, stdin: int, stdout: int, stderr: int, report: int) -> None:
        for stream in (stdin, stdout, stderr):
            os.close(stream)
        self._reports[pid] = socket.socket(fileno=report)
        self._control.send(str(pid).encode())

    def _report_ends(self) -> None:
        while self._reports:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self._reports.pop(pid) as report:
                report.send(REPORT.pack(status))

    def _become(self, stdin: int, stdout: int, stderr: int, report: int) -> None:
        """Give a new process its streams, and nothing of the server's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, descriptor in enumerate((stdin, stdout, stderr)):
            os.dup2(descriptor, number)
        for descriptor in (stdin, stdout, stderr, report, self._child_ended, self._wake):
            os.close(descriptor)
        for name in ("stdin", "stdout", "stderr"):
            _open_again(name)
        for each in (self._control, *self._reports.values()):
            each.close()


def _open_again(name: str) -> None:
    """Make a standard stream anew, as the start of an interpreter does: the server's may be of another kind of file."""
    old: io.TextIOWrapper = getattr(sys, name)
    new = io.TextIOWrapper(
        os.fdopen(old.fileno(), old.mode + "b", closefd=False), encoding=old.encoding, errors=old.errors,
        line_buffering=old.line_buffering, write_through=old.write_through,
    )  # fmt: skip
    setattr(sys, name, new)
    setattr(sys, f"__{name}__", new)


def main(number: int) -> None:
    """Serve at the socket with this descriptor; in what is forked, run the program."""
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()
    if start := Server(socket.socket(fileno=number)).serve():
        start.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
