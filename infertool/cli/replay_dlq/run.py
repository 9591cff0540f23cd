"""One run of `infertool replay-dlq` on a queue: preview, ask, replay, report the result."""

from __future__ import annotations

import dataclasses
import secrets
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infertool.brokers.declaring import DeclaresQueues, QueueSpec, Standing
from infertool.brokers.partitioned import Log
from infertool.brokers.port import Broker, Browse, Match
from infertool.cli.common import console
from infertool.cli.common.deadletters import bus as bus_of
from infertool.cli.common.deadletters import (
    connected,
    exclusive,
    kept_note,
    look,
    operator,
    report_loss,
    restore_staged,
    warn_of_skew,
)
from infertool.cli.common.options import check_replay
from infertool.cli.common.signals import stopped_by_signals
from infertool.cli.replay_dlq import view
from infertool.cli.replay_dlq.view import Preview, preview
from infertool.deadletters import letters, record, selection
from infertool.deadletters.letters import key
from infertool.deadletters.replay import companions, editing
from infertool.deadletters.replay.audit import Audit
from infertool.deadletters.replay.crossings import Crossing
from infertool.deadletters.replay.decide import Fate, Plan
from infertool.deadletters.replay.progress import Pace, Tally, parse_rate
from infertool.deadletters.replay.replay import Replay
from infertool.deadletters.replay.sending import Sender
from infertool.deadletters.replay.take import Bus
from infertool.deadletters.selection import Selection, select
from infertool.errors import InfertoolError, NothingMatchedError, UsageError
from infertool.message import Message
from infertool.settings import Settings
from infertool.settings.broker import BrokerSettings

_LOOK_S = 20.0
_MEASURE_S = 1.0
# As far as a look goes that people wait for.
_MOST_SHOWN = 1000
# Ids in one selector, which is one header.
_MOST_SELECTED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `replay-dlq`, as typed; queue names in full, and `to_broker` as what its text means."""

    queue: str
    to: str | None
    where: str | None
    stage: str | None
    error: str | None
    since: str | None
    until: str | None
    ids: tuple[str, ...]
    selector: str | None
    limit: int | None
    rate: str | None
    batch: int
    copy: bool
    assignments: tuple[str, ...]
    edit: str | None
    max_replays: int
    parking: str | None
    to_broker: BrokerSettings | None
    abort_on_refail: int | None
    audit: Path | None
    dry_run: bool
    yes: bool
    force: bool
    as_json: bool
    quiet: bool


def run(settings: Settings, options: Options) -> None:
    """Replay the matching letters. Raises `NothingMatchedError`, `UsageError`, `ServerError` and errors of `Replay`."""
    check_replay(settings, options.queue, to=options.to, parking=options.parking, to_broker=options.to_broker)
    if options.to_broker and options.abort_on_refail:
        raise UsageError("--abort-on-refail sees only what fails on this broker, and cannot be used with --to-broker")
    plan = plan_of(options)
    rate = None if options.rate is None else parse_rate(options.rate)
    bus = bus_of(settings, report_loss)
    shared = options.dry_run or options.force
    with ExitStack() as stack:
        broker = stack.enter_context(connected(settings))
        skew_s = stack.enter_context(exclusive(broker, options.queue, shared=shared))
        if options.selector and not broker.capabilities.selectors:
            raise UsageError(f"{broker.address} has no selectors", advice="use --where, --stage or --error")
        if not options.dry_run:
            if not settings.broker.declare:
                _check_staging(broker, plan)
            restore_staged(broker, bus, plan.queue)
        other = None
        if options.to_broker:
            other = stack.enter_context(connected(dataclasses.replace(settings, broker=options.to_broker)))
        crossing = _crossing(broker, other)
        shown = _look(broker, plan, crossing, skew_s)
        plan = dataclasses.replace(shown.plan, edit=editing.parse(options.assignments, options.edit))
        _show(shown, options, broker.capabilities.selector_reach)
        if options.dry_run:
            if options.as_json:
                console.emit_json(shown.document())
            return
        if not options.yes:
            _ask(options, shown)
        new_letters = view.NewLetters(lambda: broker.measure(plan.queue, _MEASURE_S))
        tally, stopped = _replay(options, plan, bus, rate, new_letters, broker, other)
        if isinstance(broker, Log):
            console.err(kept_note(broker, plan.queue))
    _sum_up(plan, tally, options, interrupted=stopped)


def _crossing(broker: Broker, other: Broker | None) -> Crossing | None:
    if other is None:
        return None
    return Crossing(broker.conventions, other.conventions, other.capabilities, could=broker.capabilities)


def _check_staging(broker: Broker, plan: Plan) -> None:
    """Raise `UsageError` if letters are to be left out, and the broker has no queue for them and makes none."""
    stages = plan.copy or plan.selection != Selection()
    if not isinstance(broker, DeclaresQueues) or broker.capabilities.log or not stages:
        return
    staging = companions.staging(plan.queue)
    [state] = broker.declare([QueueSpec(name=staging)], timeout_s=_LOOK_S, create=False)
    if state.standing is Standing.MISSING:
        raise UsageError(
            f"there is no queue {staging}, where letters that are left out wait meanwhile",
            advice=f"make it: infertool rabbitmq declare --queue {staging} --dlq {plan.queue}",
        )


def plan_of(options: Options) -> Plan:
    """Return the plan that the options describe. Raises `UsageError`."""
    now = time.time()
    selection = select(
        where=options.where,
        stage=options.stage,
        error=options.error,
        since=options.since,
        until=options.until,
        ids=options.ids,
        now=now,
    )
    return Plan(
        queue=options.queue,
        run=secrets.token_hex(6),
        began=now,
        depth=None,
        selection=selection,
        to=options.to,
        copy=options.copy,
        max_replays=options.max_replays,
        parking=options.parking,
        limit=options.limit,
        selector=options.selector,
        batch=options.batch,
        abort_on_refail=options.abort_on_refail,
    )


def _look(broker: Broker, plan: Plan, crossing: Crossing | None, skew_s: float) -> Preview:
    browse, is_empty = look(broker, plan.queue, limit=_MOST_SHOWN, timeout_s=_LOOK_S, selector=plan.selector)
    if is_empty:
        raise NothingMatchedError(f"{plan.queue} is empty, or does not exist")
    began, ahead_s = record.start(time.time(), map(letters.read, browse.messages))
    warn_of_skew(skew_s, ahead_s)
    plan = dataclasses.replace(plan, began=began, depth=browse.depth)
    if plan.selection.ids and plan.selector is None:
        return _look_for_ids(broker, plan, browse, crossing)
    return preview(plan, browse, broker.conventions, crossing)


def _look_for_ids(broker: Broker, plan: Plan, browse: Browse, crossing: Crossing | None) -> Preview:
    """Return a preview of the letters with the ids of `--id`; only they are moved.

    If one of them is not found, the replay goes through the whole queue.
    """
    deadline = time.monotonic() + _LOOK_S
    found: dict[str, Message] = {}
    for wanted in sorted(plan.selection.ids):
        those = selection.find_in(broker, plan.queue, browse, wanted, deadline)
        if not those and not browse.complete:
            console.err(
                f"{wanted}: neither a look nor a selector of the broker reaches it; all letters are gone through"
            )
            return preview(plan, browse, broker.conventions, crossing)
        found.update((key(letter.message), letter.message) for letter in those)
    those_found = Browse(list(found.values()), complete=True, depth=browse.depth)
    seen = preview(plan, those_found, broker.conventions, crossing)
    names = sorted({each.letter.message.id for each in seen.decisions if each.fate in {Fate.REPLAY, Fate.PARK}})
    if not names or len(names) > _MOST_SELECTED or not broker.capabilities.selectors:
        return seen
    plan = dataclasses.replace(plan, selector=Match(ids=tuple(names)), reach=len(names))
    return dataclasses.replace(seen, plan=plan)


def _show(shown: Preview, options: Options, reach: int | None) -> None:
    console.err(*shown.lines())
    if options.selector and reach is not None:
        console.err(f"--selector: the broker looks for matches only near the head of the queue ({reach} by default)")
        console.err("and shows nothing of what lies deeper; --where, --stage and --error see all of it")
    if options.to_broker:
        console.err("--to-broker: at least once; after a fault some may arrive twice, with the same replay_id")
    if shown.nothing_matches:
        raise NothingMatchedError(f"nothing in {shown.plan.queue} can be replayed")


def _ask(options: Options, shown: Preview) -> None:
    verb = "copy" if options.copy else "replay"
    count = f"{len(shown.replays)}" if shown.browse.complete else "all that match"
    if console.ask(f"{verb} {count} of {options.queue}? [y/N] ", otherwise="--yes").lower() not in {"y", "yes"}:
        raise InfertoolError("nothing was moved: not agreed")


def _replay(
    options: Options,
    plan: Plan,
    bus: Bus,
    rate: float | None,
    new_letters: view.NewLetters,
    broker: Broker,
    other: Broker | None,
) -> tuple[Tally, bool]:
    stop = threading.Event()
    with ExitStack() as stack:
        audit = stack.enter_context(Audit(options.audit, plan, operator())) if options.audit else None
        elsewhere = Sender(other, stop) if other else None
        stack.enter_context(stopped_by_signals(stop.set, view.stopping(stages=not broker.capabilities.log)))
        pace = None if rate is None else Pace(rate, stop)
        tally = Tally()
        replay = partial(
            Replay, bus, tally=tally, stop=stop, pace=pace, audit=audit, elsewhere=elsewhere, broker=broker
        )
        try:
            with view.shown(tally, plan, quiet=options.quiet, new_letters=new_letters):
                replay(plan).run()
                if plan.reach is not None and tally.taken < plan.reach and not (stop.is_set() or tally.ended):
                    beyond = plan.reach - tally.taken
                    console.err(f"the selector does not reach {beyond} of them; all letters are gone through")
                    replay(dataclasses.replace(plan, selector=None, reach=None)).run()
        except InfertoolError:
            # Report the finished part before the error.
            console.err(view.result_line(tally, plan))
            view.print_reasons(tally)
            raise
        return tally, stop.is_set()


def _sum_up(plan: Plan, tally: Tally, options: Options, *, interrupted: bool) -> None:
    ended = "interrupted" if interrupted else tally.ended or "end"
    sentence = view.result_line(tally, plan)
    view.print_reasons(tally)
    with console.reporting(sentence):
        if options.as_json:
            console.emit_json({"queue": plan.queue, "run": plan.run, **tally.summary(), "ended": ended})
        else:
            console.out(sentence)
    if interrupted:
        sys.exit(console.EXIT_INTERRUPTED)
    if tally.ended == "failed again":
        raise InfertoolError(f"stopped: {tally.failed_again} replayed events have failed again")
    view.check_faults(tally)
    if not tally.matched:
        raise NothingMatchedError(f"nothing in {plan.queue} matched")
    if not tally.touched:  # as where all of the queue was shown beforehand
        raise NothingMatchedError(f"nothing in {plan.queue} can be replayed", advice="the reasons are above")
