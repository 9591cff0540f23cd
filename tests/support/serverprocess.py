"""A broker's process: started with its log in a file, waited for on conditions, ended by its pid."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Self, TypeVar

import psutil

from tests.support.ports import free_port
from tests.support.rawstomp import RawStomp

START_S = 240.0
_END_S = 120.0

S = TypeVar("S", bound="ServerProcess")


class ServerProcess:
    """One broker in the folder `base`; its data survive `kill` and `stop`, and end with `remove`.

    The pid and the ports are kept in `base`, so that another worker of the test run can attach to it.
    """

    # How many ports it listens at.
    ports = 4

    def __init__(self, base: Path) -> None:
        self.base = base
        self._ports = base / "ports"
        self._pid_file = base / "server.pid"
        if not self._ports.exists():
            base.mkdir(parents=True, exist_ok=True)
            self._ports.write_text(" ".join(str(free_port()) for _ in range(self.ports)))
            self.stomp_port, *self.other_ports = self._read_ports()
            self.configure()
        self.stomp_port, *self.other_ports = self._read_ports()

    def _read_ports(self) -> list[int]:
        return [int(port) for port in self._ports.read_text().split()]

    @property
    def url(self) -> str:
        return f"stomp://127.0.0.1:{self.stomp_port}"

    @property
    def log(self) -> Path:
        return self.base / "broker.log"

    def raw(self) -> RawStomp:
        """Return a connection of the tests' own client."""
        return RawStomp(self.stomp_port)

    def configure(self) -> None:
        """Write the configuration into `base`."""
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        """Return the command that runs the broker in the foreground."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Return what the broker's environment has more than ours."""
        return {}

    def start(self) -> Self:
        """Start, and return once the broker takes logins. Raises RuntimeError with the end of its log."""
        with self.log.open("ab") as log:
            process = Popen(
                self.command(), stdout=log, stderr=log, stdin=DEVNULL, cwd=self.base,
                env={**os.environ, **self.environment()}, start_new_session=True,
            )  # fmt: skip
        self._pid_file.write_text(str(process.pid))
        deadline = time.monotonic() + START_S
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = self.log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{' '.join(self.command())[:200]} takes no login:\n{tail}")
        return self

    def _answers(self) -> bool:
        """Return True if a client can log in: a port may listen before that."""
        try:
            self.raw().close()
        except (OSError, AssertionError):
            time.sleep(0.1)
            return False
        return True

    def stop(self) -> None:
        """Stop as an administrator would; messages stay on disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End as a power cut would."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.base, ignore_errors=True)

    def is_running(self) -> bool:
        return self._process() is not None and self._answers()

    def _process(self) -> psutil.Process | None:
        """Return the broker's process, which another worker may have started."""
        try:
            process = psutil.Process(int(self._pid_file.read_text()))
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        return None if _has_ended(process) else process

    def _end(self, sig: signal.Signals) -> None:
        process = self._process()
        self._pid_file.unlink(missing_ok=True)
        if process is None:
            return
        # A launcher script has children, which it may leave behind.
        processes = [process, *process.children(recursive=True)]
        _send(processes, sig)
        deadline = time.monotonic() + _END_S
        while not all(map(_has_ended, processes)):
            if time.monotonic() > deadline:
                _send(processes, signal.SIGKILL)
            time.sleep(0.05)


def _has_ended(process: psutil.Process) -> bool:
    """Return True if `process` has ended, whether or not the worker that started it has asked for its status."""
    try:
        # One of our own is asked for its status here.
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(0)
        ended: bool = process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    return ended


def _send(processes: Iterable[psutil.Process], sig: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(sig)


@contextmanager
def shared(kind: type[S], root: Path) -> Iterator[S]:
    """Run one server of `kind` for all workers of a test run, whose common folder is `root`.

    The first that needs it starts it, the last that needed it removes it. A test that ends the broker uses one of its
    own, not this one.
    """
    name = kind.__name__.lower()
    with (root / f"{name}.users").open("w") as users:
        with _locked(root / f"{name}.lock"):
            fcntl.flock(users, fcntl.LOCK_SH)
            server = kind(root / name)
            if not server.is_running():
                server.start()
        yield server
        with _locked(root / f"{name}.lock"):
            fcntl.flock(users, fcntl.LOCK_UN)
            with contextlib.suppress(BlockingIOError):  # others use it
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                server.remove()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
