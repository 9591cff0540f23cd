"""A replica process: one consumer, which reports its figures to the supervisor.

Run as `python -m infertool.app.replicas.process CONNECTION`, an inherited socket.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from infertool.app import process
from infertool.app.consumer import ConsumerApp
from infertool.app.replicas.replica import Done, Failed, Loaded, Ready
from infertool.consumer.consumer import Until
from infertool.errors import InfertoolError
from infertool.net.connection_state import ConnectionState
from infertool.settings import Settings
from infertool.telemetry import logs, uncaught
from infertool.telemetry.signals import ConnectionChanged, Signal
from infertool.telemetry.stats import Report

# Time between two reports. Events settled after the last one are not counted if the process dies. Seconds.
REPORT_S = 0.25
_EXIT_INTERRUPTED = 130


def main(connection_fd: int) -> None:
    """Receive settings from the supervisor, consume, report, and end with the exit code of `infertool consume`."""
    sys.excepthook = uncaught.say_trace
    connection = Connection(connection_fd)
    settings: Settings
    until: Until
    settings, until = connection.recv()
    logs.set_up(settings.telemetry.log_level, settings.telemetry.log_format, str(os.getpid()))
    process.keep_stdout()
    reporter = Reporter(connection)
    app = ConsumerApp(settings, until, observers=[reporter])
    try:
        with process.ended_in_time(), app:
            process.load(app)
            reporter.send(Loaded())
            _stop_on_signals(app)
            with reporter.reporting(app):
                app.run()
    except InfertoolError as error:
        logs.log.debug("ended", exc_info=error)
        reporter.send(Failed(str(error)))
        sys.exit(error.exit_code)
    finally:
        reporter.send(app.report())
    reporter.send(Done())


def _stop_on_signals(app: ConsumerApp) -> None:
    """Stop `app` on the first signal; leave at once on a SIGINT after it. SIGHUP stays ignored, as by `nohup`."""

    def leave(_number: int, _frame: object) -> None:
        os._exit(_EXIT_INTERRUPTED)

    def stop(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, leave)
        app.stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


class Reporter:
    """Sends to the supervisor: at once when the broker is connected, and the figures every `REPORT_S`."""

    def __init__(self, supervisor: Connection) -> None:
        self._supervisor = supervisor
        self._lock = threading.Lock()

    def __call__(self, signal: Signal) -> None:
        """Observe the connection to the broker."""
        match signal:
            case ConnectionChanged("broker", event) if event.state is ConnectionState.CONNECTED:
                self.send(Ready())

    def send(self, message: Loaded | Ready | Failed | Report | Done) -> None:
        """Send one message."""
        with self._lock:
            self._supervisor.send(message)

    @contextmanager
    def reporting(self, app: ConsumerApp) -> Iterator[None]:
        """Send the figures of `app` from a thread while the block runs."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(REPORT_S):
                self.send(app.report())

        thread = threading.Thread(target=run, name="reporter", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


if __name__ == "__main__":
    main(int(sys.argv[1]))
