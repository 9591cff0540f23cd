"""One replica: a consumer process, and the next one when it has died."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from infertool.consumer.consumer import Until
from infertool.errors import InfertoolError
from infertool.net.timing import FullJitter
from infertool.settings import Settings
from infertool.telemetry import logs
from infertool.telemetry.json_logs import Relay
from infertool.telemetry.stats import Report, summed
from infertool.workers.process import ConnectedProcess

# The death of a process that lived longer than this does not lengthen the wait for the next one. Seconds.
STABLE_S = 60.0
RESTART_BACKOFF = FullJitter(base_s=1.0, cap_s=30.0)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Sent by a replica process: its model is warmed up."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Sent by a replica process: its model is warmed up, and its broker connected."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Sent by a replica process before it ends because of an error."""

    what: str


@dataclass(frozen=True, slots=True)
class Done:
    """The last message of a replica process whose run has ended well. Exit code 0 is no proof: a model may exit."""


class StartFailedError(Exception):
    """A process ended before it was ready. `exit_code` and `what` are its own."""

    def __init__(self, exit_code: int, what: str) -> None:
        super().__init__(what)
        self.exit_code = exit_code
        self.what = what


class Replica:
    """Starts a process, reads its reports, and starts another when it has died."""

    def __init__(self, number: int, settings: Settings, until: Until) -> None:
        self._number = number
        self._job = (settings, until)
        self._began = 0.0
        self._deaths = 0
        self._due: float | None = 0.0
        self._failure: str | None = None
        self._is_done = False
        self._past: Report | None = None
        self._relay: Relay
        self._connection: Connection
        self.process: ConnectedProcess | None = None
        self.was_ready = False
        self._is_loading = False
        self.load_s: float | None = None
        """The time that its first process took to load the model, in seconds; None until then."""
        self.latest: Report | None = None

    @property
    def report(self) -> Report | None:
        """The sum of the last reports of all its processes."""
        reports = [report for report in (self._past, self.latest) if report]
        return summed(reports) if reports else None

    def is_waiting(self) -> bool:
        """Return True if another process is to be started, now or later."""
        return self._due is not None

    def start_if_due(self) -> None:
        """Start a process when it is time."""
        if self._due is None or time.monotonic() < self._due:
            return
        self._began = time.monotonic()
        try:
            self.process = ConnectedProcess("infertool.app.replicas.process", stderr=subprocess.PIPE)
        except OSError as error:  # no memory, process or file descriptor is left, mostly for a moment
            self._plan_another(f"the system starts no consumer process: {error.strerror}")
            return
        self._connection = Connection(self.process.socket.detach())
        self._relay = Relay(self.process.stderr, {"process": "consumer", "pid": self.process.pid})
        self._due, self._failure, self._is_loading = None, None, True
        with suppress(OSError):  # it has died at once; its exit code tells why
            self._connection.send(self._job)

    def read(self) -> None:
        """Read the messages of the process."""
        try:
            while self.process and self._connection.poll(0):
                match self._connection.recv():
                    case Report() as report:
                        self.latest = report
                    case Loaded():
                        self._is_loading = False
                        self.load_s = self.load_s or time.monotonic() - self._began
                    case Ready():
                        self.was_ready = True
                    case Failed(what):
                        self._failure = what
                    case Done():
                        self._is_done = True
        except (EOFError, OSError):
            return  # it has ended, or will at once

    def end_hanging(self, limit_s: float) -> None:
        """End a process in another's place that has not loaded the model within `limit_s`."""
        if self.process and self._deaths and self._is_loading and time.monotonic() - self._began > limit_s:
            self._failure = f"it was not ready within {limit_s:.0f} s; see what its loading and warm_up wait for"
            self.process.kill()

    def reap(self, *, stopping: bool, can_work: bool) -> None:
        """Take the last report of a process that has ended, and plan another.

        Raises `StartFailedError` for one that gave up, unless another replica has shown that they `can_work`.
        """
        process = self.process
        if process is None or not process.has_ended():
            return
        self.read()
        self.process = None
        self._past, self.latest = self.report, None
        code, ending = process.exit_code(), process.ending()
        self._relay.join()
        process.discard()
        self._connection.close()
        if self._is_done:
            return
        if code >= 0 and not can_work:
            raise StartFailedError(
                code or InfertoolError.exit_code, self._failure or f"consumer process {self._number} {ending}"
            )
        if not stopping:
            self._plan_another(f"consumer process {process.pid} ended ({self._failure or ending})")

    def _plan_another(self, what: str) -> None:
        self._deaths = 1 if time.monotonic() - self._began > STABLE_S else self._deaths + 1
        wait_s = RESTART_BACKOFF.wait(self._deaths)
        self._due = time.monotonic() + wait_s
        logs.log.warning("%s; another starts in %.1f s", what, wait_s)
