"""One of the consumer processes of `consume --processes N`; its supervisor starts it and sums up what it reports."""

from __future__ import annotations

import sys
import threading
from multiprocessing.connection import Connection

from infertool.app.consumer import consume
from infertool.app.replicas.replica import Failed, Ready
from infertool.cli.common import process as streams
from infertool.cli.common.signals import repeated
from infertool.consumer.consumer import Until
from infertool.errors import InfertoolError
from infertool.net.connection_state import ConnectionState
from infertool.settings import Settings
from infertool.telemetry import logs, uncaught
from infertool.telemetry.signals import ConnectionChanged, Signal
from infertool.telemetry.stats import Report, Stats
from infertool.workers.process import end_with_parent

# How often the supervisor is told the figures, in seconds: what is not told when a process dies is not counted.
REPORT_S = 0.25


def main(connection_fd: int, lifeline_fd: int) -> None:
    """Consume as the supervisor says, report, and leave with the exit code of `infertool consume`."""
    end_with_parent(lifeline_fd)
    sys.excepthook = uncaught.say_trace
    supervisor = Connection(connection_fd)
    settings: Settings
    until: Until
    settings, until = supervisor.recv()
    logs.set_up(settings.telemetry.log_level, settings.telemetry.log_format)
    streams.keep_for_data()
    reporter = Reporter(supervisor)
    try:
        consume(settings, until, [reporter.stats, reporter], "", repeated(reporter.report, REPORT_S))
    except InfertoolError as error:
        logs.log.debug("ended", exc_info=error)
        reporter.send(Failed(str(error)))
        sys.exit(error.exit_code)
    finally:
        reporter.report()


class Reporter:
    """An observer that tells the supervisor at once when this process can work, and the figures now and then."""

    def __init__(self, supervisor: Connection) -> None:
        self._supervisor = supervisor
        self._lock = threading.Lock()
        self.stats = Stats()

    def __call__(self, signal: Signal) -> None:
        """Tell of the connection to the broker."""
        match signal:
            case ConnectionChanged("broker", event) if event.state is ConnectionState.CONNECTED:
                self.send(Ready())

    def send(self, word: Ready | Failed | Report) -> None:
        """Tell the supervisor."""
        with self._lock:
            self._supervisor.send(word)

    def report(self) -> None:
        """Tell the supervisor the figures."""
        self.send(self.stats.report())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
