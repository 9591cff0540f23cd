"""The job of `consume`: run one consumer, or several under a supervisor, then print the summary."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from infertool.app import process
from infertool.app.consumer import ConsumerApp
from infertool.app.monitoring import Monitor, monitored
from infertool.app.replicas.supervisor import Supervisor
from infertool.cli.common import console
from infertool.cli.common.signals import stopped_by_signals
from infertool.cli.consume import view
from infertool.consumer.consumer import Until
from infertool.consumer.tuning import asks_for_batches
from infertool.publishers.local import Lines
from infertool.settings import Settings
from infertool.telemetry import logs
from infertool.telemetry.stats import Stats

STOPPING = "stopping: finishing the events in progress (Ctrl-C again leaves at once; nothing is lost)"


def run(settings: Settings, until: Until, *, as_json: bool, quiet: bool) -> None:
    """Run until the end, then print the summary. Raises the error that ends it early."""
    logs.set_up(settings.telemetry.log_level, settings.telemetry.log_format)
    if settings.consume.processes == 1:
        with process.ended_in_time():
            _run_one(settings, until, as_json=as_json, quiet=quiet)
    else:
        _run_replicas(settings, until, as_json=as_json, quiet=quiet)


def _run_one(settings: Settings, until: Until, *, as_json: bool, quiet: bool) -> None:
    if stdout := process.keep_stdout():
        console.write_data_to(stdout)
    has_documents = settings.publish.mode == "stdout"
    with console.reporting(view.done(Stats().snapshot())):
        app = ConsumerApp(settings, until, write=_lines() if has_documents else None)
    with (
        console.reporting(lambda: view.done(app.snapshot())),
        monitored(settings, app) as monitor,
        app,
    ):
        _announce(monitor, as_json=as_json and not has_documents)
        process.load(app)
        with _shown(app, settings, until, quiet=quiet):
            app.run()
    if app.stopping:
        process.end_in_time(0)  # a reader that does not read must not hold it up
    # A table among documents on stdout could not be parsed.
    to = console.err if has_documents else console.out
    view.print_summary(app.snapshot(), as_json=as_json, to=to)


def _run_replicas(settings: Settings, until: Until, *, as_json: bool, quiet: bool) -> None:
    supervisor = Supervisor(settings, until)
    with monitored(settings, supervisor) as monitor:
        _announce(monitor, as_json=as_json)
        with _shown(supervisor, settings, until, quiet=quiet):
            supervisor.run()
    view.print_summary(supervisor.snapshot(), as_json=as_json, to=console.out)


def _announce(monitor: Monitor | None, *, as_json: bool) -> None:
    """Tell where metrics are: a log line; with `as_json` also a line of JSON on standard output."""
    if monitor is None or not monitor.address:
        return
    url = f"http://{monitor.address}"
    fields = {"event": "metrics", "url": url, "port": monitor.port}
    logs.log.info("metrics, health and stats at %s (/metrics, /livez, /readyz, /stats)", url, extra={"fields": fields})
    if as_json:
        console.emit_json(fields)


@contextmanager
def _shown(app: ConsumerApp | Supervisor, settings: Settings, until: Until, *, quiet: bool) -> Iterator[None]:
    """Stop `app` on a signal, log the start, and show the status while the block runs."""
    with stopped_by_signals(app.stop, STOPPING):
        in_batches = asks_for_batches(settings.consume) or (isinstance(app, ConsumerApp) and app.in_batches)
        view.log_start(settings, until.max_messages, in_batches=in_batches)
        with view.shown(app, settings.telemetry.status_interval_s, quiet=quiet):
            yield


def _lines() -> Callable[[Sequence[bytes]], None]:
    """Return a function that writes documents to standard output, a line each. Raises `OutputError`."""
    stream = console.data_stream()
    if not console.on_terminal():
        return Lines(stream.buffer)
    lock = threading.Lock()

    def write(documents: Sequence[bytes]) -> None:
        with lock:
            console.out_data(*(document.decode() for document in documents))

    return write
