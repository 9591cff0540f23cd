"""A load process: sends its share of the plan, counts it, and reports to the team.

Run as `python -m infertool.load.process CONNECTION`, an inherited socket.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Final

from infertool.errors import InfertoolError
from infertool.load.options import LoadOptions
from infertool.load.tally import Clock, Meter, Tally
from infertool.load.team import CONNECTED, Counted, StartFailed
from infertool.load.work import Share, Work
from infertool.settings.broker import BrokerSettings

_REPORT_EVERY_S: Final = 0.25
# Longest wait for the team's message after a SIGTERM, which a stop of the whole run also sends to this process.
_STOP_MESSAGE_S: Final = 2.0


def main(connection_fd: int) -> None:
    """Connect, wait for the start, send, and report."""
    # The team decides what these mean; they may be sent to all processes of a run.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(connection_fd)
    settings: BrokerSettings
    options: LoadOptions
    share: Share
    settings, options, share = connection.recv()
    LoadProcess(connection, settings, options, share).run()


class LoadProcess:
    """The work of one process, and its conversation with the team."""

    def __init__(self, team: Connection, settings: BrokerSettings, options: LoadOptions, share: Share) -> None:
        self._team = team
        self._options = options
        self._lock = threading.Lock()
        self._clock = Clock()
        self._tally, self._meter = Tally(self._clock), Meter(self._clock)
        self._work = Work(settings, options, share, self._tally, self._meter, on_connection=self._send)
        self._signalled, self._told, self._over = threading.Event(), threading.Event(), threading.Event()

    def run(self) -> None:
        """Run to the end."""
        try:
            self._work.connect()
        except InfertoolError as error:
            self._send(StartFailed(str(error)))
            return
        signal.signal(signal.SIGTERM, self._end_early)
        self._send(CONNECTED)
        with contextlib.suppress(EOFError):  # the team ends before the start
            self._measured()
        self._work.close()

    def _measured(self) -> None:
        run_clock = self._team.recv()
        self._clock.start(run_clock, self._options.planned.warmup_s)
        reporter = threading.Thread(target=self._report_often, name="reporter", daemon=True)
        reporter.start()
        threading.Thread(target=self._await_stop, name="stop", daemon=True).start()
        self._work.run(run_clock)
        self._over.set()
        reporter.join()
        self._report()
        # Without a message of the team the signal was for this process alone.
        early = self._signalled.is_set() and not self._told.wait(_STOP_MESSAGE_S)
        self._send(replace(self._work.end(), deaths=("was ended by SIGTERM",) if early else ()))

    def _end_early(self, _number: int, _frame: object) -> None:
        # Not in the handler: the code that it interrupts may hold the locks that `stop` takes.
        self._signalled.set()
        threading.Thread(target=self._work.stop, daemon=True).start()

    def _await_stop(self) -> None:
        """Wait for a message of the team, or for its end."""
        with contextlib.suppress(EOFError, OSError):
            self._team.recv()
            self._told.set()
        self._work.stop()

    def _report_often(self) -> None:
        while not self._over.wait(_REPORT_EVERY_S):
            self._report()

    def _report(self) -> None:
        times = {key: latencies.encode() for key, latencies in self._meter.cut_seconds().items()}
        self._send(Counted(self._tally.cut(warm=True), self._tally.cut(), times))

    def _send(self, message: object) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._team.send(message)


if __name__ == "__main__":
    main(int(sys.argv[1]))
