"""One load run: connect, send, wait for results, return the record."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from infertool import __version__, brokers
from infertool.channels.event import ChannelEvent, OnChannelEvents
from infertool.channels.topics import TopicFeed
from infertool.errors import InfertoolError, UnreachableError
from infertool.load.observed import DeadLetterCount, Observed, OwnDeadLetters
from infertool.load.options import LoadOptions
from infertool.load.record import RETRIES, Counts, Run, RunInfo, RunWriter, Second
from infertool.load.report import RunFacts, notes
from infertool.load.seconds import PlannedEvents, Seconds
from infertool.load.sides import Sides
from infertool.load.tally import Clock, Measure, Meter, RunClock, Tally, new_run_id, start_clock
from infertool.load.team import Team
from infertool.load.work import Share, Work, WorkEnd
from infertool.net.connection_state import ConnectionEvent
from infertool.secret import mask_url
from infertool.settings import Settings
from infertool.telemetry.latencies import Latencies

if TYPE_CHECKING:
    from infertool.load.endpoint import LoadEndpoint

# Time before the first event, in which all threads and processes get ready. Seconds.
_BEGIN_S: Final = 0.2
# Time after the last event was seen, for duplicates and dead letters that follow. Seconds.
_AFTERMATH_S: Final = 0.5
# Time without a new dead letter after which no more are expected. Seconds.
_DEAD_QUIET_S: Final = 10.0
_POLL_S: Final = 0.1
_MEASURE_S: Final = 2.0
_CLOSE_S: Final = 5.0


def _ignore_second(_second: Second) -> None:
    """Do nothing: the default of `on_second`."""


def _ignore_connection(_side: str, _event: ConnectionEvent) -> None:
    """Do nothing: the default of `on_connection`."""


def _ignore_death(_text: str) -> None:
    """Do nothing: the default of `on_death`."""


def _ignore_arrivals(_arrivals: Sequence[ChannelEvent]) -> None:
    """Do nothing: the default of `on_events`."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Callbacks of a run. They are called from its threads, must be quick and must not raise."""

    on_second: Callable[[Second], None] = _ignore_second
    on_connection: Callable[[str, ConnectionEvent], None] = _ignore_connection
    on_events: OnChannelEvents = _ignore_arrivals
    on_death: Callable[[str], None] = _ignore_death


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The queue's depths and the dead letters of a finished run; None means unknown."""

    queue_before: int | None = None
    queue_after: int | None = None
    dead: OwnDeadLetters | None = None


class LoadRun:
    """One run; call `run` once. The constructor raises UsageError for invalid options.

    `fault` is the error of a run that has a report nonetheless.
    """

    def __init__(
        self, settings: Settings, options: LoadOptions, listeners: Listeners, given: Mapping[str, str]
    ) -> None:
        options.check()
        self._clock = Clock()
        self.tally = Tally(self._clock)
        self.fault: InfertoolError | None = None
        self._settings = settings
        self._options = options
        self._listeners = listeners
        self._meter = Meter(self._clock)
        self._sides = Sides()
        self._topics_lost: dict[str, str] = {}
        self._ticked_at: float | None = None
        self._control = None if options.http else brokers.open(settings.broker, name="infertool-loadgen")
        on_broker = partial(self._connection_changed, "broker")
        if options.processes > 1:
            self._work: Work | Team = Team(
                settings.broker, options, self.tally, self._meter, on_connection=on_broker, on_death=listeners.on_death
            )
        else:
            self._work = Work(settings.broker, options, Share(), self.tally, self._meter, on_connection=on_broker)
        self._observed: Observed | None = None
        self._writer: RunWriter | None = None
        self._stopped_s: float | None = None
        self._abandoned = threading.Event()
        self._rows: list[Second] = []
        warmup_s = options.planned.warmup_s
        plan = None if options.closed else PlannedEvents(options.schedule().times(), warmup_s)
        self._seconds = Seconds(self._clock, math.floor(-warmup_s), plan, self.tally, self._meter, self._cut)
        target = options.http.target() if options.http else None
        self.info = RunInfo(
            __version__, time.time(), "closed" if options.closed else "open", options.plan_text,
            target.origin if target else self._control.address if self._control else "",
            mask_url(target.path) if target else options.envelope.queue,
            options.planned.seed, options.measures, given,
        )  # fmt: skip

    def serve(self, address: str) -> LoadEndpoint:
        """Serve metrics and health at `address` until it is closed. Raises `ListenError` and `UsageError`."""
        from infertool.load.endpoint import LoadEndpoint  # noqa: PLC0415  (few runs serve metrics)

        return LoadEndpoint(
            address, tally=self.tally, meter=self._meter, sides=self._sides, ticked_at=lambda: self._ticked_at
        )

    def stop(self) -> None:
        """End the sending early, from any thread; `run` still waits for the results of sent events."""
        if self._stopped_s is None:
            self._stopped_s = self._clock.since_zero()
        self._seconds.end_plan()
        self._work.stop()

    def abandon(self) -> None:
        """End the sending, from any thread; `run` does not wait for results."""
        self._abandoned.set()
        self.stop()

    def run(self, writer: RunWriter | None = None) -> Run:
        """Run to the end. Raises UnreachableError, RefusedError while connecting; later errors are in `fault`."""
        self._writer = writer
        with ExitStack() as stack:
            if self._control:
                stack.callback(self._control.close, _CLOSE_S)
                self._control.connect()
            if self._options.e2e:
                stack.callback(self._watch().close, _CLOSE_S)
            stack.callback(self._work.close)
            self._work.connect()
            run = self._measured()
        if writer and not self.fault:
            self._try(lambda: writer.end(run))
        end = self._work.end()
        if end.fault:
            what, advice = end.fault
            self.fault = self.fault or UnreachableError(what, address=self.info.broker, advice=advice)
        if deaths := end.deaths:
            self.fault = self.fault or InfertoolError("; ".join(deaths), advice="the report is of what the others did")
        return run

    def _try(self, write: Callable[[], None]) -> None:
        """Call `write`; a failure ends the sending and becomes the run's `fault`."""
        try:
            write()
        except InfertoolError as error:
            self.fault = error
            self.stop()

    def _watch(self) -> TopicFeed:
        phoenix = self._settings.phoenix
        topics = (phoenix.result_topic, phoenix.alert_topic)
        on_phoenix = partial(self._connection_changed, "phoenix")
        feed = TopicFeed(
            phoenix, topics, on_events=self._arrived, on_connection=on_phoenix, on_topic=self._topic_changed
        )
        feed.connect()
        return feed

    def _topic_changed(self, topic: str, reason: str) -> None:
        if reason:
            self._topics_lost.setdefault(topic, reason)

    def _arrived(self, arrivals: Sequence[ChannelEvent]) -> None:
        if self._observed:
            self._work.done(self._observed.take(arrivals))
        self._listeners.on_events(arrivals)

    def _connection_changed(self, side: str, event: ConnectionEvent) -> None:
        self._sides.changed(side, event)
        self._listeners.on_connection(side, event)

    def _measured(self) -> Run:
        options = self._options
        run_id, warmup_s = new_run_id(), options.planned.warmup_s
        before, dead = None, None
        if options.e2e and self._control:
            dlq = self._settings.deadletter.queue
            dead = DeadLetterCount(self._control, dlq, sent_to=options.envelope.queue, run_id=run_id)
            before = self._depth()
        run_clock = start_clock(_BEGIN_S, run_id)
        self._clock.start(run_clock, warmup_s)
        self._observed = Observed(run_clock, self.tally, self._meter, warmup_s=warmup_s)
        self._ticked_at = run_clock.mono
        self._seconds.start()
        began = time.process_time()
        self._send(run_clock)
        if self._work.end().fault:
            self.stop()
        cpu_s = time.process_time() - began
        if self._clock.since_zero() < options.end_s - warmup_s:
            self._seconds.end_plan()
        outcome = _Outcome()
        if dead:
            self._settle()
            after = self._depth()
            # A broker that reports depths reports none for a queue that does not exist.
            before = 0 if before is None and after is not None else before
            outcome = _Outcome(before, after, self._dead(dead, run_clock))
        self._count_unreported()
        self._seconds.stop()
        self._ticked_at = None
        return self._result(cpu_s, outcome)

    def _depth(self) -> int | None:
        depth = self._control.measure(self._options.envelope.queue, _MEASURE_S) if self._control else None
        return depth.size if depth else None

    def _send(self, run_clock: RunClock) -> None:
        """Send all events in a thread of its own: the main thread stays free for signals."""
        faults: list[BaseException] = []

        def send() -> None:
            try:
                self._work.run(run_clock)
            except BaseException as fault:  # noqa: BLE001  (raised below: a report would be of what came before it)
                faults.append(fault)

        thread = threading.Thread(target=send, name="loadgen", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)
        if faults:
            self._seconds.stop()
            raise faults[0]

    def _settle(self) -> None:
        """Wait until all events were seen, or none was for the settling time.

        Only time spent waiting counts: after this process was stopped, results are still in the socket.
        """
        settle_s, newest, quiet_s = self._options.settle_s, 0.0, 0.0
        while not self.tally.wait_until_seen(_POLL_S) and not self._abandoned.is_set() and quiet_s < settle_s:
            last = self._observed.last_at if self._observed else 0.0
            quiet_s = quiet_s + _POLL_S if last == newest else 0.0
            newest = last
        self._abandoned.wait(min(_AFTERMATH_S, settle_s))

    def _dead(self, dead: DeadLetterCount, run_clock: RunClock) -> OwnDeadLetters | None:
        """Wait until each failure has its dead letter, or no more are added. Return the run's own dead letters."""
        failures = sum(self.tally.totals(warm=warm)["failures"] for warm in (True, False))
        most, newest_at = 0, time.monotonic()
        while (growth := dead.growth()) is not None and growth < failures:
            if growth > most:
                most, newest_at = growth, time.monotonic()
            elif time.monotonic() - newest_at > min(self._options.settle_s, _DEAD_QUIET_S):
                break
            if self._abandoned.wait(_POLL_S):
                break
        if self._abandoned.is_set():
            return None
        return dead.own(
            self.tally.totals()["failures"],
            lambda event_id: (
                (known := run_clock.read(event_id)) is not None and known[1] >= self._options.planned.warmup_s
            ),
        )

    def _count_unreported(self) -> None:
        """Count events as sent that were seen, but whose load process died before it reported them."""
        totals = self.tally.totals()
        if self._options.e2e and (more := totals["results"] + totals["failures"] - totals["sent"]) > 0:
            self.tally.add(sent=more, unsent=-more)

    def _cut(self, second: Second, histograms: Mapping[Measure, Latencies]) -> None:
        self._rows.append(second)
        self._ticked_at = time.monotonic()
        if self._writer and not self.fault:
            writer = self._writer
            self._try(lambda: writer.second(second, histograms))
        self._listeners.on_second(second)

    def _result(self, cpu_s: float, outcome: _Outcome) -> Run:
        options, end, histograms = self._options, self._work.end(), self._meter.totals()
        elapsed_s = self._elapsed_s(end)
        # The warm-up's share of the processor time is estimated by its length, and left out.
        whole_s = elapsed_s + options.planned.warmup_s
        cpu_s = (cpu_s + (end.cpu_s if options.processes > 1 else 0.0)) * (elapsed_s / whole_s if whole_s else 1.0)
        counts = self._counts(outcome)
        slip = histograms.get(Measure.SLIP, Latencies()).percentiles()
        dead_exact = outcome.dead is None or outcome.dead.exact
        facts = RunFacts(
            options, counts, elapsed_s, self._planned_s(elapsed_s), cpu_s, slip, end, self._sides.reconnects,
            dead_exact, self._topics_lost,
        )  # fmt: skip
        return Run(
            self.info, tuple(self._rows), counts, histograms, elapsed_s, cpu_s, notes(facts),
            planned_s=self._planned_s(elapsed_s), came_out_s=self._came_out_s(elapsed_s),
            statuses=end.statuses,
        )  # fmt: skip

    def _elapsed_s(self, end: WorkEnd) -> float:
        """Return the time of counted sending: the plan's, unless the sending took longer or was stopped."""
        options = self._options
        end_s = end.finished_s
        if options.closed is None and self._stopped_s is None:
            end_s = max(end_s, options.end_s)
        return max(end_s - options.planned.warmup_s, 0.0)

    def _planned_s(self, elapsed_s: float) -> float:
        """Return the time that the counted part of the plan takes, or took until it was stopped."""
        options = self._options
        planned_s = elapsed_s if options.closed else options.end_s - options.planned.warmup_s
        if math.isinf(planned_s):
            planned_s = elapsed_s
        return max(min(planned_s, math.inf if self._stopped_s is None else self._stopped_s), 0.0)

    def _came_out_s(self, elapsed_s: float) -> float:
        """Return the time from the first counted second to the last arrival, at least that of sending."""
        last_at = self._observed.last_at if self._observed else 0.0
        return max(elapsed_s, self._clock.since_zero() - (time.monotonic() - last_at) if last_at else 0.0)

    def _counts(self, outcome: _Outcome) -> Counts:
        options, totals = self._options, self.tally.totals()
        names = ["planned", "sent", "late", "dropped", "unsent"]
        names += ["poison"] if options.payloads.poison_rate else []
        names += ["confirmed"] if options.confirm else []
        counts = Counts(**{name: totals[name] for name in names})
        if options.http:
            return _http_counts(counts, totals, obeys=options.http.obeys)
        if options.rpc:
            found = {name: totals[name] for name in ("results", "failures", "timed_out", "duplicates")}
            return replace(counts, **found, lost=totals["sent"] - sum(found.values()) + found["duplicates"])
        if not options.e2e:
            return counts
        unseen = totals["sent"] - totals["results"] - totals["failures"]
        # A queue gives out what came first, so what is left in it are the newest.
        queued = None if outcome.queue_after is None else min(unseen, outcome.queue_after)
        return replace(
            counts,
            **{name: totals[name] for name in ("results", "failures", "duplicates", "out_of_order")},
            queued=queued,
            lost=unseen - (queued or 0),
            dead_lettered=outcome.dead.count if outcome.dead else None,
            queue_before=outcome.queue_before,
            queue_after=outcome.queue_after,
        )


def _http_counts(counts: Counts, totals: Mapping[str, int], *, obeys: bool) -> Counts:
    found = {name: totals[name] for name in ("results", "failures", "timed_out", "shed", "unavailable", "lost")}
    return replace(counts, **found, **({name: totals[name] for name in RETRIES} if obeys else {}))
