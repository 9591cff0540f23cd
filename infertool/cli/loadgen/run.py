"""One run of `infertool loadgen`: send, report, check the assertions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import typer

from infertool import brokers
from infertool.cli.common import console
from infertool.cli.common.signals import stopped_by_signals
from infertool.cli.common.typed_options import check_used, is_typed, spelling
from infertool.cli.loadgen.view import View, check, summary
from infertool.errors import InfertoolError
from infertool.load import assertions
from infertool.load.options import LoadOptions
from infertool.load.record import RunWriter
from infertool.load.report import document
from infertool.load.run import Listeners, LoadRun
from infertool.settings import Settings

# The report holds these elsewhere, or they may hold a password.
_LEFT_OUT = {"broker", "phoenix", "http", "queue", "output", "save", "asserts", "metrics"}


def given(ctx: typer.Context) -> dict[str, str]:
    """Return the options given on the command line, by name. URLs are left out: they may hold a password."""
    return {
        spelling(name): ", ".join(value) if isinstance(value, list) else str(value)
        for name, value in ctx.params.items()
        if name not in _LEFT_OUT and is_typed(ctx, name)
    }


def refuse_unused(ctx: typer.Context, options: LoadOptions) -> None:
    """Raise `UsageError` for an option on the command line that does nothing in this run."""
    check_used(
        ctx,
        ("pick", len(options.payloads.documents) > 1, "it is the order of several payloads: add --payload FILE"),
        ("settle", options.e2e, "it ends the wait for results: add --e2e"),
        ("persistent", not (options.rpc or options.http), "requests (--rpc, --http) are never persistent"),
        (
            "priority",
            brokers.adapter(options.envelope.broker_url).CAPABILITIES.priorities,
            "the broker has none: use several queues",
        ),
    )


def run(
    settings: Settings,
    options: LoadOptions,
    given: Mapping[str, str],
    *,
    save: Path | None,
    metrics: str | None,
    expressions: Sequence[str],
    as_json: bool,
    quiet: bool,
) -> None:
    """Run to the end and report. Raises InfertoolError, also for an assertion that does not hold."""
    view = View(options, quiet=quiet)
    listeners = Listeners(on_second=view.second, on_connection=view.connection_changed, on_death=view.process_died)
    load = LoadRun(settings, options, listeners, given)
    wanted = assertions.parse(expressions, options.measures)
    with ExitStack() as stack:
        # From here on a signal stops the run in order, also while it connects.
        stack.enter_context(stopped_by_signals(load.stop, view.stopping))
        if metrics is not None:
            endpoint = load.serve(metrics)
            stack.callback(endpoint.close)
            if not quiet:
                console.err(f"metrics and health at {endpoint.url} (/metrics, /livez, /readyz)")
        writer = stack.enter_context(RunWriter(save, load.info)) if save else None
        with view.shown(load.tally, load.info):
            finished = load.run(writer)
    report = document(finished)
    assertions.judge(wanted, report)
    where = f"; {save} holds the run" if save else ""
    with console.reporting(f"{finished.counts.sent} events sent{where}"):
        if as_json:
            console.emit_json(report)
        else:
            console.out(*summary(report))
    if load.fault:
        raise load.fault
    if not finished.counts.sent and finished.counts.planned:
        raise InfertoolError(f"none of {finished.counts.planned} planned events was sent", advice="see the notes above")
    counts = finished.counts
    if options.http and counts.sent and counts.sent == (counts.lost or 0) + (counts.timed_out or 0):
        raise InfertoolError(f"none of {counts.sent} requests was answered", advice="see the notes above")
    check(report)
