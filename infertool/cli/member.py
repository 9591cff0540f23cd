"""One of the consumer processes of `consume --processes N`; its supervisor starts it and sums up what it reports."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from infertool.cli.consuming import consume
from infertool.cli.place import Failed, Ready
from infertool.errors import InfertoolError
from infertool.link import LinkState
from infertool.pipeline.consumer import Until
from infertool.pipeline.processes.lifeline import end_with_parent
from infertool.settings import Settings
from infertool.telemetry import logs
from infertool.telemetry.observer import Happening, Linked
from infertool.telemetry.stats import Report, Stats

# How often the supervisor is told the figures, in seconds: what is not told when a process dies is not counted.
REPORT_S = 0.25


def main(connection_fd: int, lifeline_fd: int) -> None:
    """Consume as the supervisor says, report, and leave with the exit code of `infertool consume`."""
    end_with_parent(lifeline_fd)
    supervisor = Connection(connection_fd)
    settings: Settings
    until: Until
    settings, until = supervisor.recv()
    logs.set_up(settings.telemetry.log_level, settings.telemetry.log_format)
    reporter = Reporter(supervisor)
    try:
        consume(settings, until, [reporter.stats, reporter], "", reporter.reporting())
    except InfertoolError as error:
        logs.log.debug("ended", exc_info=error)
        reporter.send(Failed(str(error)))
        sys.exit(error.exit_code)
    finally:
        reporter.send(reporter.stats.report())


class Reporter:
    """An observer that tells the supervisor at once when this process can work, and the figures now and then."""

    def __init__(self, supervisor: Connection) -> None:
        self._supervisor = supervisor
        self._lock = threading.Lock()
        self.stats = Stats()

    def __call__(self, happening: Happening) -> None:
        """Tell of the connection to the broker."""
        match happening:
            case Linked("broker", event) if event.state is LinkState.CONNECTED:
                self.send(Ready())

    def send(self, word: Ready | Failed | Report) -> None:
        """Tell the supervisor."""
        with self._lock:
            self._supervisor.send(word)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Report the figures while the block runs."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(REPORT_S):
                self.send(self.stats.report())

        thread = threading.Thread(target=run, name="reports", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
