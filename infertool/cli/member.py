"""One of the consumer processes of `consume --processes N`; its supervisor starts it and sums up what it reports."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from infertool.cli.consuming import consume
from infertool.errors import InfertoolError
from infertool.pipeline.consumer import Until
from infertool.pipeline.processes.lifeline import end_with_parent
from infertool.settings import Settings
from infertool.telemetry import logs
from infertool.telemetry.stats import Stats

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
    stats = Stats()
    try:
        consume(settings, until, stats, "", _reported(stats, supervisor))
    except InfertoolError as error:
        logs.log.debug("ended", exc_info=error)
        supervisor.send(str(error))
        sys.exit(error.exit_code)
    finally:
        supervisor.send(stats.report())


@contextmanager
def _reported(stats: Stats, supervisor: Connection) -> Iterator[None]:
    """Report while the block runs."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(REPORT_S):
            supervisor.send(stats.report())

    thread = threading.Thread(target=run, name="reports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
