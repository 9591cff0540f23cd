"""A load run from its options to its record."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from infertool import __version__, brokers
from infertool.errors import InfertoolError
from infertool.feed.arrival import Arrival, OnArrivals
from infertool.feed.topics import TopicFeed
from infertool.link import LinkEvent, LinkState
from infertool.load import epoch as epochs
from infertool.load.deadcount import DeadLetterCount
from infertool.load.epoch import Epoch
from infertool.load.latency import Measure, Meter
from infertool.load.limits import Seen, notes
from infertool.load.options import LoadOptions
from infertool.load.record import Counts, Run, RunInfo, Second
from infertool.load.runfile import RunWriter
from infertool.load.seconds import Seconds
from infertool.load.sightings import Sightings
from infertool.load.tally import Tally
from infertool.load.team import Team
from infertool.load.work import Share, Work, WorkEnd
from infertool.settings import Settings
from infertool.telemetry.latencies import Latencies

# From here to the first event: all threads and processes know of it by then.
_BEGIN_S: Final = 0.2
# After the last event was seen: time for a further copy of it, and for its dead letter.
_AFTERMATH_S: Final = 0.5
_POLL_S: Final = 0.1
_CLOSE_S: Final = 5.0


def _ignore_second(_second: Second) -> None:
    """Do nothing: the default of `on_second`."""


def _ignore_link(_side: str, _event: LinkEvent) -> None:
    """Do nothing: the default of `on_link`."""


def _ignore_arrivals(_arrivals: Sequence[Arrival]) -> None:
    """Do nothing: the default of `on_arrivals`."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who hears of a run as it goes. Calls come from its threads, must be quick and must not raise."""

    on_second: Callable[[Second], None] = _ignore_second
    on_link: Callable[[str, LinkEvent], None] = _ignore_link
    on_arrivals: OnArrivals = _ignore_arrivals


class LoadRun:
    """Made, run once. Making one raises UsageError for options that cannot work."""

    def __init__(
        self, settings: Settings, options: LoadOptions, listeners: Listeners, given: Mapping[str, str]
    ) -> None:
        options.check()
        self.tally = Tally()
        self._settings = settings
        self._options = options
        self._listeners = listeners
        self._meter = Meter()
        self._losses = Counter[str]()
        self._control = brokers.open(settings.broker, name="infertool-loadgen")
        link = partial(self._linked, "broker")
        if options.processes > 1:
            self._work: Work | Team = Team(settings.broker, options, self.tally, self._meter, on_link=link)
        else:
            self._work = Work(settings.broker, options, Share(), self.tally, self._meter, on_link=link)
        self._sightings: Sightings | None = None
        self._writer: RunWriter | None = None
        self._fault: InfertoolError | None = None
        self._stopped = threading.Event()
        self._abandoned = threading.Event()
        self._seconds: list[Second] = []
        self.info = RunInfo(
            __version__, time.time(), "closed" if options.closed else "open", options.plan_text,
            self._control.address, options.envelope.queue, options.planned.seed, options.measures, given,
        )  # fmt: skip

    def stop(self) -> None:
        """End the sending early, from any thread; what was sent is still waited for."""
        self._stopped.set()
        self._work.stop()

    def abandon(self) -> None:
        """End the sending, and wait for nothing, from any thread."""
        self._abandoned.set()
        self.stop()

    def run(self, writer: RunWriter | None = None) -> Run:
        """Run to the end. Raises UnreachableError, RefusedError, and InfertoolError when `writer` does."""
        self._writer = writer
        with ExitStack() as stack:
            stack.callback(self._control.close, _CLOSE_S)
            self._control.connect()
            if self._options.e2e:
                stack.callback(self._watch().close, _CLOSE_S)
            stack.callback(self._work.close)
            self._work.connect()
            run = self._measured()
        if self._fault:
            raise self._fault
        if writer:
            writer.end(run)
        return run

    def _watch(self) -> TopicFeed:
        phoenix = self._settings.phoenix
        topics = (phoenix.result_topic, phoenix.alert_topic)
        link = partial(self._linked, "phoenix")
        feed = TopicFeed(phoenix, topics, on_arrivals=self._arrived, on_link=link)
        feed.connect()
        return feed

    def _arrived(self, arrivals: Sequence[Arrival]) -> None:
        if self._sightings:
            self._work.done(self._sightings.take(arrivals))
        self._listeners.on_arrivals(arrivals)

    def _linked(self, side: str, event: LinkEvent) -> None:
        # A connection that is tried again and again was lost once.
        if event.state is LinkState.CONNECTED and event.epoch > 1:
            self._losses[side] += 1
        self._listeners.on_link(side, event)

    def _measured(self) -> Run:
        options, dead = self._options, None
        if options.e2e:
            dlq = self._settings.deadletter.queue
            dead = DeadLetterCount(self._control, dlq, sent_to=options.envelope.queue)
        epoch = epochs.begin(_BEGIN_S)
        warmup_s = options.planned.warmup_s
        self._sightings = Sightings(epoch, self.tally, self._meter, warmup_s=warmup_s)
        seconds = Seconds(epoch, warmup_s, self.tally, self._meter, self._cut)
        seconds.start()
        before = time.process_time()
        self._send(epoch)
        cpu_s = time.process_time() - before
        dead_lettered = self._settle(dead) if dead else None
        seconds.stop()
        return self._result(cpu_s, dead_lettered)

    def _send(self, epoch: Epoch) -> None:
        """Have all sent, in a thread, so that signals reach this one."""

        def work() -> None:
            try:
                self._work.run(epoch)
            except InfertoolError as error:
                self._fault = error

        thread = threading.Thread(target=work, name="loadgen", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)

    def _settle(self, dead: DeadLetterCount) -> int | None:
        """Wait until all came out or nothing came for the settling time. Return how many dead letters there are."""
        settle_s, sightings = self._options.settle_s, self._sightings
        ended = time.monotonic()
        while not self.tally.wait_until_seen(_POLL_S):
            if (
                self._abandoned.is_set()
                or sightings is None
                or time.monotonic() - max(ended, sightings.last_at) > settle_s
            ):
                break
        self._abandoned.wait(min(_AFTERMATH_S, settle_s))
        deadline = time.monotonic() + settle_s
        while (count := dead()) is not None:
            # The warm-up's are among them.
            count = max(count - self.tally.totals(warm=True)["failures"], 0)
            if count >= self.tally.totals()["failures"] or time.monotonic() > deadline:
                break
            if self._abandoned.wait(_POLL_S):
                break
        return count

    def _cut(self, second: Second, histograms: Mapping[Measure, Latencies]) -> None:
        self._seconds.append(second)
        if self._writer and not self._fault:
            try:
                self._writer.second(second, histograms)
            except InfertoolError as error:
                self._fault = error
                self.stop()
        self._listeners.on_second(second)

    def _result(self, cpu_s: float, dead_lettered: int | None) -> Run:
        options, end, histograms = self._options, self._work.end(), self._meter.totals()
        elapsed_s = self._elapsed_s(end)
        # What the warm-up took is left out by its length.
        whole_s = elapsed_s + options.planned.warmup_s
        cpu_s = (cpu_s + (end.cpu_s if options.processes > 1 else 0.0)) * (elapsed_s / whole_s if whole_s else 1.0)
        counts = self._counts(dead_lettered)
        slip = histograms.get(Measure.SLIP, Latencies()).percentiles()
        seen = Seen(options, counts, elapsed_s, cpu_s, slip, end, self._losses)
        return Run(self.info, tuple(self._seconds), counts, histograms, elapsed_s, cpu_s, notes(seen))

    def _elapsed_s(self, end: WorkEnd) -> float:
        """Return the time of counted sending: the plan's, unless the sending took longer or was stopped."""
        options = self._options
        end_s = end.finished_s
        if options.closed is None and not self._stopped.is_set():
            end_s = max(end_s, options.end_s)
        return max(end_s - options.planned.warmup_s, 0.0)

    def _counts(self, dead_lettered: int | None) -> Counts:
        options, totals = self._options, self.tally.totals()
        names = ["planned", "sent", "late", "dropped", "unsent"]
        names += ["poison"] if options.payloads.poison_rate else []
        names += ["confirmed"] if options.confirm else []
        names += ["results", "failures", "duplicates", "out_of_order"] if options.e2e else []
        lost = totals["sent"] - totals["results"] - totals["failures"] if options.e2e else None
        return Counts(**{name: totals[name] for name in names}, lost=lost, dead_lettered=dead_lettered)
