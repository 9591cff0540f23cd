"""The sending of several processes, for rates that one interpreter cannot reach. They count; this one adds up."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from infertool.errors import InfertoolError
from infertool.link import LinkEvent, OnLink
from infertool.load.epoch import Epoch
from infertool.load.latency import Measure, Meter
from infertool.load.options import LoadOptions
from infertool.load.tally import Tally
from infertool.load.work import Share, Work, WorkEnd
from infertool.settings.tree import BrokerSettings
from infertool.telemetry.latencies import Latencies

_START_S: Final = 60.0
_STOP_S: Final = 15.0
_REPORT_EVERY_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class _Counts:
    """What a process counted since its last report."""

    warm: Mapping[str, int]
    counted: Mapping[str, int]
    times: Mapping[Measure, str]


@dataclass(frozen=True, slots=True)
class _Failure:
    text: str


class Team:
    """Looks like `Work`, with the connections in other processes."""

    def __init__(
        self, settings: BrokerSettings, options: LoadOptions, tally: Tally, meter: Meter, *, on_link: OnLink
    ) -> None:
        self._tally = tally
        self._meter = meter
        self._on_link = on_link
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        self._ends: list[WorkEnd] = []
        self._failure: str | None = None
        self._talking = threading.Lock()
        self._running = False
        self._stopped = False
        for index in range(options.processes):
            ours, theirs = context.Pipe()
            share = Share(index, options.processes)
            process = context.Process(target=_child, args=(theirs, settings, options, share), daemon=True)
            self._pipes.append(ours)
            self._processes.append((process, theirs))

    def connect(self) -> None:
        """Start all and wait until each is connected. Raises InfertoolError."""
        for process, theirs in self._processes:
            process.start()
            theirs.close()
        for pipe in self._pipes:
            self._answer(pipe)

    def _answer(self, pipe: Connection) -> None:
        try:
            if not pipe.poll(_START_S):
                raise InfertoolError(f"a load process did not connect within {_START_S:g} s")
            while isinstance(answer := pipe.recv(), LinkEvent):
                self._on_link(answer)
        except EOFError:
            raise InfertoolError("a load process ended before it was connected") from None
        if isinstance(answer, _Failure):
            raise InfertoolError(f"a load process cannot start: {answer.text}")

    def run(self, epoch: Epoch) -> None:
        """Have all send until the plan is over or `stop`. Raises InfertoolError when one of them dies."""
        with self._talking:
            if self._stopped:
                return
            self._running = True
            self._tell(epoch)
        readers = [threading.Thread(target=self._follow, args=(pipe,), daemon=True) for pipe in self._pipes]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        if self._failure:
            raise InfertoolError(self._failure)

    def _tell(self, word: object) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(word)

    def _follow(self, pipe: Connection) -> None:
        try:
            while True:
                match pipe.recv():
                    case _Counts() as counts:
                        self._add(counts)
                    case LinkEvent() as event:
                        self._on_link(event)
                    case WorkEnd() as end:
                        self._ends.append(end)
                        return
        except (EOFError, OSError):
            self._failure = "a load process died; what it did since its last report, a quarter of a second, is unknown"
            self.stop()

    def _add(self, counts: _Counts) -> None:
        self._tally.merge(counts.warm, warm=True)
        for measure, text in counts.times.items():
            self._meter.merge(measure, Latencies.decode(text))
        self._tally.merge(counts.counted)

    def done(self, count: int) -> None:
        """Do nothing: a closed model has one process."""

    def stop(self) -> None:
        """End early, from any thread."""
        with self._talking:
            self._stopped = True
            if self._running:
                self._tell("stop")

    def end(self) -> WorkEnd:
        """Return how it went: the latest end, the longest block, all refusals."""
        refusals: Counter[str] = Counter()
        for end in self._ends:
            refusals.update(end.refusals)
        return WorkEnd(
            max((end.finished_s for end in self._ends), default=0.0),
            max((end.blocked_s for end in self._ends), default=0.0),
            sum(end.cpu_s for end in self._ends),
            dict(refusals),
        )

    def close(self) -> None:
        """End all processes."""
        for pipe in self._pipes:
            pipe.close()
        for process, _ in self._processes:
            if process.pid is not None:
                process.join(_STOP_S)
                process.kill()
                process.join()


def _child(pipe: Connection, settings: BrokerSettings, options: LoadOptions, share: Share) -> None:
    # Ctrl-C goes to all processes of a terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lock = threading.Lock()

    def tell(message: object) -> None:
        with lock, contextlib.suppress(OSError):
            pipe.send(message)

    tally, meter = Tally(), Meter()
    work = Work(settings, options, share, tally, meter, on_link=tell)
    try:
        work.connect()
    except InfertoolError as error:
        tell(_Failure(str(error)))
        return
    tell("connected")
    try:
        epoch = pipe.recv()
    except EOFError:
        work.close()
        return
    over = threading.Event()

    def report() -> None:
        times = {measure: latencies.encode() for measure, latencies in meter.cut().items()}
        tell(_Counts(dict(tally.cut(warm=True)), dict(tally.cut()), times))

    def report_often() -> None:
        while not over.wait(_REPORT_EVERY_S):
            report()

    def hear() -> None:
        # A word from the parent, or its end.
        with contextlib.suppress(EOFError, OSError):
            pipe.recv()
        work.stop()

    reporter = threading.Thread(target=report_often, daemon=True)
    reporter.start()
    threading.Thread(target=hear, daemon=True).start()
    work.run(epoch)
    over.set()
    reporter.join()
    report()
    tell(work.end())
    work.close()
