"""The sending of several processes, for rates that one interpreter cannot reach. They count; this one adds up.

One that dies does not end the others: what it did not report is counted as unsent, and its death is in `WorkEnd`.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any, Final

from infertool.errors import InfertoolError
from infertool.load.options import LoadOptions
from infertool.load.run_clock import Clock, RunClock
from infertool.load.tally import BySecond, Measure, Meter, Tally
from infertool.load.work import Share, Work, WorkEnd
from infertool.net.connection_state import ConnectionEvent, OnConnection
from infertool.settings.tree import BrokerSettings
from infertool.telemetry.latencies import Latencies

_START_S: Final = 60.0
_STOP_S: Final = 15.0
_REPORT_EVERY_S: Final = 0.25
_WORD_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Counts:
    """What a process counted since its last report, by second."""

    warm: BySecond
    counted: BySecond
    times: Mapping[tuple[int, Measure], str]


@dataclass(frozen=True, slots=True)
class _Failure:
    text: str


@dataclass(slots=True)
class _Member:
    """One of the processes, and the sums that it reported, by whether they are of the warm-up."""

    share: Share
    process: Any
    pipe: Connection
    theirs: Connection
    reported: dict[bool, Counter[str]] = field(default_factory=lambda: {True: Counter(), False: Counter()})
    end: WorkEnd | None = None
    death: str = ""


class Team:
    """Looks like `Work`, with the connections in other processes. `on_death` hears of one that dies."""

    def __init__(
        self,
        settings: BrokerSettings,
        options: LoadOptions,
        tally: Tally,
        meter: Meter,
        *,
        on_connection: OnConnection,
        on_death: Callable[[str], None],
    ) -> None:
        self._options = options
        self._tally = tally
        self._meter = meter
        self._on_connection = on_connection
        self._on_death = on_death
        context = multiprocessing.get_context("spawn")
        self._members: list[_Member] = []
        self._talking = threading.Lock()
        self._running = False
        self._stopped_s = math.inf
        self._begin = 0.0
        for index in range(options.processes):
            ours, theirs = context.Pipe()
            share = Share(index, options.processes)
            process = context.Process(target=_child, args=(theirs, settings, options, share), daemon=True)
            self._members.append(_Member(share, process, ours, theirs))

    def connect(self) -> None:
        """Start all and wait until each is connected. Raises InfertoolError."""
        for member in self._members:
            member.process.start()
            member.theirs.close()
        for member in self._members:
            self._answer(member.pipe)

    def _answer(self, pipe: Connection) -> None:
        try:
            if not pipe.poll(_START_S):
                raise InfertoolError(f"a load process did not connect within {_START_S:g} s")
            while isinstance(answer := pipe.recv(), ConnectionEvent):
                self._on_connection(answer)
        except EOFError:
            raise InfertoolError("a load process ended before it was connected") from None
        if isinstance(answer, _Failure):
            raise InfertoolError(f"a load process cannot start: {answer.text}")

    def run(self, run_clock: RunClock) -> None:
        """Have all send until the plan is over or `stop`."""
        with self._talking:
            if self._stopped_s < math.inf:
                return
            self._running = True
            self._begin = run_clock.mono
            self._tell(run_clock)
        readers = [threading.Thread(target=self._follow, args=(member,), daemon=True) for member in self._members]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        for member in self._members:
            if member.death:
                self._take_over(member)

    def _tell(self, word: object) -> None:
        for member in self._members:
            with contextlib.suppress(OSError):
                member.pipe.send(word)

    def _follow(self, member: _Member) -> None:
        try:
            while True:
                match member.pipe.recv():
                    case _Counts() as counts:
                        self._add(member, counts)
                    case ConnectionEvent() as event:
                        self._on_connection(event)
                    case WorkEnd() as end:
                        member.end = end
                        how = "".join(end.deaths)
                        break
        except (EOFError, OSError):
            member.process.join(_STOP_S)
            how = _death(member.process.exitcode)
        if how:
            member.death = f"load process {member.share.index + 1} of {member.share.of} {how}"
            self._on_death(member.death)

    def _add(self, member: _Member, counts: _Counts) -> None:
        for warm, seconds in ((True, counts.warm), (False, counts.counted)):
            self._tally.merge(seconds, warm=warm)
            for each in seconds.values():
                member.reported[warm].update(each)
        for (second, measure), text in counts.times.items():
            self._meter.merge(second, measure, Latencies.decode(text))

    def _take_over(self, member: _Member) -> None:
        """Count what a dead process was to send, and did not report, as unsent."""
        now_s = time.monotonic() - self._begin
        warmup_s = self._options.planned.warmup_s
        planned: Counter[int] = Counter()
        for _, due in member.share.of_all(self._options.schedule().times()):
            if due > min(now_s, self._stopped_s):
                break
            planned[math.floor(due - warmup_s)] += 1
        for warm, reported in member.reported.items():
            seconds = {second: count for second, count in sorted(planned.items()) if (second < 0) == warm}
            unsent = sum(seconds.values()) - reported["sent"] - reported["dropped"] - reported["unsent"]
            missing = sum(seconds.values()) - reported["planned"]
            for second, count in reversed(seconds.items()):
                taken = min(count, missing)
                self._tally.add(warm=warm, second=second, planned=taken)
                missing -= taken
            self._tally.add(warm=warm, unsent=unsent)
            if not warm:
                member.death += f"; {unsent} events of its share were not reported as sent, and count as unsent"

    def done(self, count: int) -> None:
        """Do nothing: a closed model has one process."""

    def stop(self) -> None:
        """End early, from any thread."""
        with self._talking:
            self._stopped_s = min(self._stopped_s, time.monotonic() - self._begin)
            if self._running:
                self._tell("stop")

    def end(self) -> WorkEnd:
        """Return how it went: the latest end, the longest block, all refusals and deaths."""
        ends = [member.end for member in self._members if member.end]
        refusals: Counter[str] = Counter()
        drops: Counter[str] = Counter()
        for end in ends:
            refusals.update(end.refusals)
            drops.update(end.drops)
        return WorkEnd(
            max((end.finished_s for end in ends), default=0.0),
            max((end.blocked_s for end in ends), default=0.0),
            sum(end.cpu_s for end in ends),
            dict(refusals),
            dict(drops),
            tuple(member.death for member in self._members if member.death),
        )

    def close(self) -> None:
        """End all processes."""
        for member in self._members:
            member.pipe.close()
        for member in self._members:
            if member.process.pid is not None:
                member.process.join(_STOP_S)
                member.process.kill()
                member.process.join()


def _death(code: int | None) -> str:
    return f"died (signal {-code})" if code is not None and code < 0 else f"died (exit code {code})"


def _child(pipe: Connection, settings: BrokerSettings, options: LoadOptions, share: Share) -> None:
    # Ctrl-C, and a terminal's end, go to all processes of a terminal; the parent decides what they mean.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lock = threading.Lock()

    def tell(message: object) -> None:
        with lock, contextlib.suppress(OSError):
            pipe.send(message)

    clock = Clock()
    tally, meter = Tally(clock), Meter(clock)
    work = Work(settings, options, share, tally, meter, on_connection=tell)
    try:
        work.connect()
    except InfertoolError as error:
        tell(_Failure(str(error)))
        return
    signalled, told = threading.Event(), threading.Event()

    def end_early(_number: int, _frame: object) -> None:
        # Not in the handler: what it interrupts may hold the locks that `stop` takes.
        signalled.set()
        threading.Thread(target=work.stop, daemon=True).start()

    signal.signal(signal.SIGTERM, end_early)
    tell("connected")
    try:
        run_clock = pipe.recv()
    except EOFError:
        work.close()
        return
    clock.start(run_clock, options.planned.warmup_s)
    over = threading.Event()

    def report() -> None:
        times = {key: latencies.encode() for key, latencies in meter.cut_seconds().items()}
        tell(_Counts(tally.cut(warm=True), tally.cut(), times))

    def report_often() -> None:
        while not over.wait(_REPORT_EVERY_S):
            report()

    def hear() -> None:
        # A word from the parent, or its end.
        with contextlib.suppress(EOFError, OSError):
            pipe.recv()
            told.set()
        work.stop()

    reporter = threading.Thread(target=report_often, daemon=True)
    reporter.start()
    threading.Thread(target=hear, daemon=True).start()
    work.run(run_clock)
    over.set()
    reporter.join()
    report()
    # A signal to all processes of a run comes with a word from the parent.
    early = signalled.is_set() and not told.wait(_WORD_S)
    tell(replace(work.end(), deaths=("was ended by SIGTERM",) if early else ()))
    work.close()
