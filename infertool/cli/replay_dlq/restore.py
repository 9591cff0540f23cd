"""One run of `infertool replay-dlq --from FILE`: send the letters of an archive."""

from __future__ import annotations

import dataclasses
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from infertool import brokers
from infertool.cli.common import console, deadletters
from infertool.cli.common.deadletters import bus, operator, report_loss, when
from infertool.cli.common.options import check_apart, check_replay
from infertool.cli.common.signals import stopped_by_signals
from infertool.cli.replay_dlq import view
from infertool.cli.replay_dlq.run import Options, plan_of
from infertool.deadletters.archive import restore
from infertool.deadletters.archive.journal import Journal
from infertool.deadletters.archive.restore import Archive, Look, Restore
from infertool.deadletters.replay import editing
from infertool.deadletters.replay.audit import Audit
from infertool.deadletters.replay.decide import Fate, Fault, Plan
from infertool.deadletters.replay.progress import Pace, Tally, parse_rate
from infertool.errors import InfertoolError, NothingMatchedError, UsageError
from infertool.settings import Settings

_GOODBYE_S = 10.0
_FIELDS = ("stage", "error_type")
_STOPPING = "stopping after this batch; Ctrl-C again leaves at once (the next run sends again what was under way)"


def run(settings: Settings, options: Options, path: Path, *, only: str | None) -> None:
    """Send the matching letters of the archive at `path`; `only` those of one queue, of all in it if None.

    Raises `NothingMatchedError`, `UsageError`, `ArchiveError`, `ServerError`.
    """
    check_replay(settings, options.queue, to=options.to, parking=options.parking, to_broker=options.to_broker)
    plan = plan_of(options)
    _check(options, path)
    rate = None if options.rate is None else parse_rate(options.rate)
    plan = dataclasses.replace(plan, edit=editing.parse(options.assignments, options.edit))
    archive = Archive(path, only, brokers.conventions(settings.broker.url))
    if options.to_broker:
        settings = dataclasses.replace(settings, broker=options.to_broker)
    adapter = brokers.adapter(settings.broker.url)
    with Journal(path) as journal:
        look = restore.look(archive, plan, journal, adapter.CONVENTIONS, adapter.CAPABILITIES)
        _show(archive, look, journal, plan)
        if options.dry_run:
            if options.as_json:
                console.emit_json(_preview(path, look))
            return
        if not options.yes:
            _ask(path)
        tally, interrupted = _restore(settings, options, plan, archive, journal, rate)
    _sum_up(path, tally, look, options, interrupted=interrupted)


def _check(options: Options, path: Path) -> None:
    for given, option in (
        (options.selector, "--selector"),
        (options.copy, "--copy"),
        (options.abort_on_refail, "--abort-on-refail"),
        (options.force, "--force"),
    ):
        if given:
            raise UsageError(f"{option} is about a queue, and cannot be used with --from")
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    check_apart("--audit", options.audit, ("--from", path), ("the journal of --from", Path(f"{path}.journal")))


def _show(archive: Archive, look: Look, journal: Journal, plan: Plan) -> None:
    path, tally = archive.path, look.tally
    before = f", {look.sent_before} of them sent before (see {journal.path})" if look.sent_before else ""
    limit = "" if plan.limit is None else f", of which at most {plan.limit} are sent"
    of_one = "" if archive.only is None else f" of {archive.only}"
    console.err(f"{path}: {look.records} messages{of_one}{before}")
    if journal.in_doubt:
        console.err(
            f"  {journal.in_doubt} were in work when an earlier run ended; they may arrive twice, with the same"
        )
        console.err("  original_message_id")
    console.err(f"{tally.replayed + tally.fates[Fate.PARK]} match{limit}")
    for target, count in tally.targets.most_common():
        console.err(f"  to {target}: {count}")
    for why, count in tally.reasons.most_common():
        console.err(f"  stay: {count}, {why}")
    for what, count in tally.losses.most_common():
        console.err(f"  lost: {count}, {what}")
    if look.groups:
        console.err(f"  oldest {when(look.oldest)}, newest {when(look.newest)}")
        console.err(*deadletters.group_table(look.groups, _FIELDS))
    else:
        raise NothingMatchedError(f"nothing in {path} is to be sent")


def _preview(path: Path, look: Look) -> dict[str, Any]:
    """Return what a run would do as a document for JSON."""
    summary = look.tally.summary()
    return {
        "file": str(path),
        "dry_run": True,
        "messages": look.records,
        "sent_before": look.sent_before,
        "matching": look.tally.replayed,
        **{name: summary[name] for name in ("targets", "reasons", "losses")},
    }


def _ask(path: Path) -> None:
    if console.ask(f"send them from {path}? [y/N] ", otherwise="--yes").lower() not in {"y", "yes"}:
        raise InfertoolError("nothing was sent: not agreed")


def _restore(
    settings: Settings, options: Options, plan: Plan, archive: Archive, journal: Journal, rate: float | None
) -> tuple[Tally, bool]:
    stop, path = threading.Event(), archive.path
    pace = None if rate is None else Pace(rate, stop)
    with ExitStack() as stack:
        to = restore.plan_for(path, plan)
        audit = stack.enter_context(Audit(options.audit, to, operator())) if options.audit else None
        broker = bus(settings, report_loss).open_broker(report_loss)
        stack.callback(broker.close, _GOODBYE_S)
        broker.connect()
        stack.enter_context(stopped_by_signals(stop.set, _STOPPING))
        work = Restore(broker, archive, plan, journal, stop=stop, pace=pace, audit=audit)
        try:
            with view.shown(work.tally, to, quiet=options.quiet):
                return work.run(), stop.is_set()
        except InfertoolError:
            # Report the finished part before the error.
            console.err(_sentence(path, work.tally))
            view.print_reasons(work.tally)
            raise


def _sum_up(path: Path, tally: Tally, look: Look, options: Options, *, interrupted: bool) -> None:
    sentence = _sentence(path, tally)
    view.print_reasons(tally)
    with console.reporting(sentence):
        if options.as_json:
            console.emit_json({"file": str(path), "sent_before": look.sent_before, **tally.summary()})
        else:
            console.out(sentence)
    if interrupted:
        sys.exit(console.EXIT_INTERRUPTED)
    view.check_faults(tally)


def _sentence(path: Path, tally: Tally) -> str:
    counts = [
        ("parked", tally.fates[Fate.PARK]),
        ("kept", tally.fates[Fate.KEEP] - tally.faults[Fault.UNCONFIRMED]),
        ("never confirmed, which may have arrived", tally.faults[Fault.UNCONFIRMED]),
    ]
    others = "".join(f", {count} {name}" for name, count in counts if count)
    return f"sent {tally.replayed}{others} from {path}; {tally.seconds:.1f} s"
