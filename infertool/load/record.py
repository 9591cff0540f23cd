"""The record of a load run (plan, seconds, sums, histograms), and the file that `--save` writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Self

import msgspec

from infertool.errors import InfertoolError, UsageError
from infertool.load.tally import Measure
from infertool.telemetry.latencies import Latencies, Percentiles

_VERSION: Final = 1
_LONGEST_HEAD: Final = 1_000_000
RETRIES: Final = ("retried", "retry_served")


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The settings of a run.

    `started_at` is wall-clock time in seconds, `broker` an address without secrets, `options` the options that were
    given, as typed. `measures` lists what is measured, even without samples.
    """

    version: str
    started_at: float
    model: Literal["open", "closed"]
    plan: str
    broker: str
    queue: str
    seed: int
    measures: tuple[Measure, ...]
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Second:
    """One second: how many events were `planned` for it, and what happened in it, to events of any second.

    `t` counts from the end of the warm-up; negative seconds are warm-up and in no sum. `late` events were sent, but not
    in time; `dropped` ones were not sent because they were too late, `unsent` ones because no connection took them.
    """

    t: int
    planned: int = 0
    sent: int = 0
    late: int = 0
    dropped: int = 0
    unsent: int = 0
    confirmed: int = 0
    results: int = 0
    failures: int = 0
    duplicates: int = 0
    latency_ms: Mapping[Measure, Percentiles] = field(default_factory=dict)
    timed_out: int = 0
    shed: int = 0
    unavailable: int = 0
    retried: int = 0
    retry_served: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """The sums of a run, without the warm-up. None means unknown, for want of --confirm, --e2e, --rpc or --http.

    `planned` = `sent` + `dropped` + `unsent`; with --e2e `sent` = `results` + `failures` + `queued` + `lost`, with
    --rpc `sent` = `results` + `failures` + `timed_out` + `lost`, with --http the same and `shed` (429) + `unavailable`
    (503). Of these, `retried` were sent once more with --obey-retry-after, and `retry_served` then got 2xx. `poison`
    counts the broken events sent, `dead_lettered` the failures that are in the dead-letter queue, `queued` the events
    that were not seen and may still be in the queue, which held `queue_before` and `queue_after` messages.
    """

    planned: int = 0
    sent: int = 0
    late: int = 0
    dropped: int = 0
    unsent: int = 0
    poison: int | None = None
    confirmed: int | None = None
    results: int | None = None
    failures: int | None = None
    dead_lettered: int | None = None
    queued: int | None = None
    lost: int | None = None
    duplicates: int | None = None
    out_of_order: int | None = None
    queue_before: int | None = None
    queue_after: int | None = None
    timed_out: int | None = None
    shed: int | None = None
    unavailable: int | None = None
    retried: int | None = None
    retry_served: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is reported.

    `elapsed_s` is the time of counted sending, `cpu_s` the processor time of all load processes. `notes` are sentences
    such as that the generator was the limit. A run whose file ends early is not `complete`: its sums are those of the
    seconds written. `planned_s` is the length of the plan up to a stop, `came_out_s` the time up to the last result, at
    least `elapsed_s`; both are without the warm-up, and None in files of older versions. `statuses` counts responses by
    status and reason (--http).
    """

    info: RunInfo
    seconds: tuple[Second, ...]
    counts: Counts
    histograms: Mapping[Measure, Latencies]
    elapsed_s: float
    cpu_s: float | None = None
    notes: tuple[str, ...] = ()
    complete: bool = True
    planned_s: float | None = None
    came_out_s: float | None = None
    statuses: Mapping[str, int] = field(default_factory=dict)


class _Head(msgspec.Struct, frozen=True):
    infertool_loadgen: int
    info: RunInfo


class _Line(msgspec.Struct, frozen=True, tag="second", tag_field="line"):
    second: Second
    hdr: Mapping[Measure, str]


class _End(msgspec.Struct, frozen=True, tag="end", tag_field="line"):
    counts: Counts
    elapsed_s: float
    cpu_s: float | None
    notes: tuple[str, ...]
    hdr: Mapping[Measure, str]
    planned_s: float | None = None
    came_out_s: float | None = None
    statuses: Mapping[str, int] = {}


class RunFileError(UsageError):
    """A run file is unreadable, damaged or of another version."""


class RunWriter:
    """Writes a run file. Each line is handed to the system before the call returns. Calls may raise InfertoolError.

    The constructor raises UsageError if the file exists or cannot be written. The file of a run that ends before its
    first second is removed.
    """

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path = path
        self._empty = True
        try:
            self._file = path.open("xb", buffering=0)
        except FileExistsError:
            raise UsageError(f"{path} is there already", advice="name another file, or remove it") from None
        except OSError as fault:
            raise UsageError(f"{path} cannot be written: {fault.strerror}") from None
        try:
            self._write(_Head(_VERSION, info))
        except InfertoolError:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._empty:
            self.path.unlink(missing_ok=True)

    def second(self, second: Second, histograms: Mapping[Measure, Latencies]) -> None:
        """Write a second and its histograms, as `Meter.cut` returns them."""
        self._write(_Line(second, _encoded(histograms)))
        self._empty = False

    def end(self, run: Run) -> None:
        """Write the sums."""
        hdr = _encoded(run.histograms)
        self._write(
            _End(run.counts, run.elapsed_s, run.cpu_s, run.notes, hdr, run.planned_s, run.came_out_s, run.statuses)
        )
        self._empty = False

    def _write(self, line: msgspec.Struct) -> None:
        rest = memoryview(msgspec.json.encode(line) + b"\n")
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as fault:
            raise InfertoolError(f"{self.path} cannot be written: {fault.strerror}") from None


def read(path: Path) -> Run:
    """Return the run of a file. If the file is cut short, the run is not `complete`. Raises RunFileError."""
    try:
        with path.open("rb") as file:
            info = _head(file, path)
            begin = file.tell()
            seconds: list[Second] = []
            for number, line in _lines(file, path):
                if isinstance(line, _End):
                    hdr = _decoded(line.hdr, path, number)
                    return Run(
                        info, tuple(seconds), line.counts, hdr, line.elapsed_s, line.cpu_s, line.notes,
                        planned_s=line.planned_s, came_out_s=line.came_out_s, statuses=line.statuses,
                    )  # fmt: skip
                seconds.append(line.second)
            file.seek(begin)
            return _cut_short(info, seconds, _summed_histograms(file, path))
    except OSError as fault:
        raise RunFileError(f"{path} cannot be read: {fault.strerror}") from None


def _head(file: BinaryIO, path: Path) -> RunInfo:
    try:
        head = msgspec.json.decode(file.readline(_LONGEST_HEAD), type=_Head)
    except msgspec.DecodeError:
        raise RunFileError(f"{path} is no file of infertool loadgen --save") from None
    if head.infertool_loadgen != _VERSION:
        found = head.infertool_loadgen
        raise RunFileError(f"{path} is of version {found}; this infertool knows version {_VERSION}")
    return head.info


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, _Line | _End]]:
    """Return the lines after the first, with their numbers, without a last one that is cut short."""
    decoder = msgspec.json.Decoder(_Line | _End)
    for number, line in enumerate(file, 2):
        try:
            decoded = decoder.decode(line)
        except msgspec.DecodeError:
            if file.readline():
                raise _damaged(path, number) from None
            return
        yield number, decoded


def _summed_histograms(file: BinaryIO, path: Path) -> Mapping[Measure, Latencies]:
    """Return the histograms merged over all seconds, without the warm-up."""
    totals: dict[Measure, Latencies] = {}
    for number, line in _lines(file, path):
        if isinstance(line, _Line) and line.second.t >= 0:
            for measure, latencies in _decoded(line.hdr, path, number).items():
                totals.setdefault(measure, Latencies()).merge(latencies)
    return totals


def _cut_short(info: RunInfo, seconds: list[Second], histograms: Mapping[Measure, Latencies]) -> Run:
    """Return an incomplete run; its sums are made from the seconds."""
    counted = [second for second in seconds if second.t >= 0]

    def total(name: str, *, measured: bool = True) -> Any:
        return sum(getattr(second, name) for second in counted) if measured else None

    send, rpc, http = (each in info.measures for each in (Measure.SEND, Measure.REPLY, Measure.HTTP))
    seen = rpc or http or Measure.E2E in info.measures
    counts = Counts(
        **{name: total(name) for name in ("planned", "sent", "late", "dropped", "unsent")},
        confirmed=total("confirmed", measured=send),
        **{name: total(name, measured=seen) for name in ("results", "failures")},
        duplicates=total("duplicates", measured=seen and not http),
        timed_out=total("timed_out", measured=rpc or http),
        **{name: total(name, measured=http) for name in ("shed", "unavailable")},
        **{name: total(name, measured=http and "--obey-retry-after" in info.options) for name in RETRIES},
    )

    def length(*names: str) -> float:
        return 1.0 + max((each.t for each in counted if any(getattr(each, name) for name in names)), default=-1)

    return Run(
        info, tuple(seconds), counts, histograms, elapsed_s=length("planned", "sent"), complete=False,
        planned_s=length("planned"), came_out_s=length("planned", "sent", "results", "failures"),
    )  # fmt: skip


def _encoded(histograms: Mapping[Measure, Latencies]) -> dict[Measure, str]:
    return {measure: latencies.encode() for measure, latencies in histograms.items()}


def _decoded(hdr: Mapping[Measure, str], path: Path, number: int) -> dict[Measure, Latencies]:
    try:
        return {measure: Latencies.decode(text) for measure, text in hdr.items()}
    except ValueError:
        raise _damaged(path, number) from None


def _damaged(path: Path, number: int) -> RunFileError:
    return RunFileError(f"{path} is damaged in line {number}")
