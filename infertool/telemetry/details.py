"""What a consumer counts beside its totals while its metrics are on; sums over processes."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from infertool.net.connection_state import ConnectionState
from infertool.telemetry import signals
from infertool.telemetry.latencies import Latencies

# Error types that are counted by name, for each stage; the others are counted together.
MOST_TYPES: Final = 20
OTHER: Final = "other"
# Names of which occurrences are noted, to find the most frequent.
_MOST_NOTED: Final = 1000
_LONGEST_TYPE: Final = 100
_MINUTE_S: Final = 60.0

# What comes with each batch and is counted elsewhere: not compared with each case below.
_UNCOUNTED: Final = frozenset({signals.Predicted, signals.Pushed, signals.Confirmed})

NO_QUEUE_STATE: Final = signals.QueueState()

K = TypeVar("K")
# Upper edges of the buckets of times: 1, 2 and 5 from 1 ms to 60 s. Seconds.
TIMES_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)

FailureCounts = dict[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Exemplar:
    """An event of a histogram's bucket whose trace can be looked at. `at` is Unix time in seconds."""

    trace_id: str
    value_s: float
    at: float


@dataclass(frozen=True, slots=True)
class Details:
    """Figures of one process, or sums over several. Times are monotonic seconds, which all processes share.

    `failures` counts by (stage, error type). Histograms are encoded, see `Latencies.encode`. `link_since` is when each
    side's connection last went up or down. `ahead_s` is how far a producer's clock was ahead of ours at most, in
    the last two minutes with events.
    `exemplars` has the newest traced event of each bucket of `TIMES_S`, by its latency.
    `reported_at` is when the consumer last reported its `ticks`, `made_at` when these figures were taken.
    `called_at` is when a call of the model was last in progress; events are held until `held_until` at least.
    """

    failures: FailureCounts = field(default_factory=dict)
    reconnects: dict[str, int] = field(default_factory=dict)
    link_since: dict[str, float] = field(default_factory=dict)
    batch_sizes: dict[int, int] = field(default_factory=dict)
    exemplars: dict[int, Exemplar] = field(default_factory=dict)
    age: str = ""
    confirm: str = ""
    ahead_s: float | None = None
    model_version: str = ""
    queue: signals.QueueState = NO_QUEUE_STATE
    ticks: signals.Ticks | None = None
    reported_at: float | None = None
    received_at: float | None = None
    settled_at: float | None = None
    called_at: float | None = None
    held_until: float | None = None
    started_at: float = 0.0
    made_at: float = 0.0


class ErrorTypes:
    """Counts failures by error type: the most frequent by name, at most `MOST_TYPES`, all others as `other`.

    No count ever decreases. A type that has become twice as frequent as the rarest one with a name takes its place: its
    own count begins then, and that of the rarest is added to `other`.
    """

    def __init__(self) -> None:
        # What is shown, and how often each name came at all.
        self._named: Counter[str] = Counter()
        self._noted: Counter[str] = Counter()
        self._other = 0

    def add(self, error_type: str) -> None:
        """Count one failure."""
        name = error_type[:_LONGEST_TYPE]
        if name == OTHER:
            self._other += 1
            return
        self._note(name)
        if name in self._named or len(self._named) < MOST_TYPES:
            self._named[name] += 1
            return
        self._other += 1
        rarest = min(self._named, key=lambda each: self._noted[each])
        if self._noted[name] > 2 * self._noted[rarest]:
            self._other += self._named.pop(rarest)
            self._named[name] = 0

    def _note(self, name: str) -> None:
        if name not in self._noted and len(self._noted) >= _MOST_NOTED:
            # Names that came once are most likely of those that never come again.
            self._noted = Counter({each: n for each, n in self._noted.items() if n > 1 or each in self._named})
        if name in self._noted or len(self._noted) < _MOST_NOTED:
            self._noted[name] += 1

    def counts(self) -> dict[str, int]:
        """Return the counts by name; their sum is the number of failures."""
        return {**self._named, **({OTHER: self._other} if self._other else {})}


class DetailCounter:
    """An observer that counts details. Not thread-safe."""

    def __init__(self) -> None:
        self._failures: dict[str, ErrorTypes] = {}
        self._reconnects: Counter[str] = Counter()
        self._up: dict[str, bool] = {}
        self._link_since: dict[str, float] = {}
        self._batch_sizes: Counter[int] = Counter()
        self._exemplars: dict[int, Exemplar] = {}
        self._age = Latencies()
        self._confirm = Latencies()
        # By minute, of the last two with samples.
        self._ahead_s: dict[int, float] = {}
        self._model_version = ""
        self._queue = NO_QUEUE_STATE
        self._ticks: signals.Ticks | None = None
        self._reported_at: float | None = None
        self._received_at: float | None = None
        self._settled_at: float | None = None
        self._called_at: float | None = None
        self._held_until: float | None = None
        self._started_at = time.monotonic()

    def __call__(self, signal: signals.Signal) -> None:
        """Count `signal`."""
        if type(signal) in _UNCOUNTED:
            return
        match signal:
            case signals.Received():
                self._received_at = time.monotonic()
            case signals.Succeeded() | signals.DeadLettered() | signals.Delayed() | signals.Dropped():
                self._settled_at = time.monotonic()
            case signals.Failed():
                self._failures.setdefault(signal.stage, ErrorTypes()).add(signal.error_type)
            case signals.Batch(size):
                self._batch_sizes[size] += 1
            case signals.Traced(trace_id, latency_s):
                self._exemplars[bisect_left(TIMES_S, latency_s)] = Exemplar(trace_id, latency_s, time.time())
            case signals.ConfirmTimes(seconds):
                self._confirm.add(seconds)
            case signals.Ages(seconds):
                self._age.add(seconds)
                self._note_ahead(max(0.0, -min(seconds)))
            case signals.ModelReady(version):
                self._model_version = version
            case signals.QueueState():
                self._queue = signal
            case signals.Ticks():
                self._ticks, self._reported_at = signal, time.monotonic()
                if signal.call_s:
                    self._called_at = self._reported_at
            case signals.Deferred():
                self._held_until = max(self._held_until or 0.0, time.monotonic() + signal.delay_s)
            case signals.ConnectionChanged(side, event):
                self._connection(side, event.state is ConnectionState.CONNECTED, event.epoch)
            case _:
                pass

    def _connection(self, side: str, up: bool, epoch: int) -> None:  # noqa: FBT001  (the state itself)
        self._reconnects[side] += up and epoch > 1
        if self._up.get(side) is not up:
            self._up[side], self._link_since[side] = up, time.monotonic()

    def _note_ahead(self, ahead_s: float) -> None:
        minute = int(time.monotonic() // _MINUTE_S)
        if minute not in self._ahead_s:
            self._ahead_s = {each: found for each, found in self._ahead_s.items() if each == minute - 1}
        self._ahead_s[minute] = max(ahead_s, self._ahead_s.get(minute, 0.0))

    def details(self) -> Details:
        """Return the figures now."""
        return Details(
            failures={
                (stage, name): count
                for stage, types in self._failures.items()
                for name, count in types.counts().items()
            },
            reconnects=dict(self._reconnects),
            link_since=dict(self._link_since),
            batch_sizes=dict(self._batch_sizes),
            exemplars=dict(self._exemplars),
            age=self._age.encode(),
            confirm=self._confirm.encode(),
            ahead_s=max(self._ahead_s.values(), default=None),
            model_version=self._model_version,
            queue=self._queue,
            ticks=self._ticks,
            reported_at=self._reported_at,
            received_at=self._received_at,
            settled_at=self._settled_at,
            called_at=self._called_at,
            held_until=self._held_until,
            started_at=self._started_at,
            made_at=time.monotonic(),
        )


def joined(all_details: Sequence[Details], running: Sequence[Details]) -> Details:
    """Return the sums over all processes; what is a state is that of the `running` ones."""
    return Details(
        failures=_bounded(details.failures for details in all_details),
        reconnects=_sums(details.reconnects for details in all_details),
        link_since=_latest(details.link_since for details in running),
        batch_sizes=_sums(details.batch_sizes for details in all_details),
        exemplars=_newest(details.exemplars for details in all_details),
        age=merged(details.age for details in all_details),
        confirm=merged(details.confirm for details in all_details),
        ahead_s=max((d.ahead_s for d in all_details if d.ahead_s is not None), default=None),
        model_version=next((d.model_version for d in reversed(running) if d.model_version), ""),
        queue=next((d.queue for d in running if d.queue != NO_QUEUE_STATE), NO_QUEUE_STATE),
        received_at=_last(details.received_at for details in all_details),
        settled_at=_last(details.settled_at for details in all_details),
        called_at=_last(details.called_at for details in running),
        held_until=_last(details.held_until for details in running),
        started_at=min((details.started_at for details in all_details), default=time.monotonic()),
    )


def merged(histograms: Iterable[str]) -> str:
    """Return one histogram of all times."""
    found = [histogram for histogram in histograms if histogram]
    if len(found) == 1:
        return found[0]
    latencies = Latencies()
    for histogram in found:
        latencies.merge(Latencies.decode(histogram))
    return latencies.encode()


def _bounded(counts: Iterable[FailureCounts]) -> FailureCounts:
    """Return the sums, of at most `MOST_TYPES` error types by name for each stage: the first, so that none ends."""
    total: FailureCounts = {}
    names: Counter[str] = Counter()
    for failures in counts:
        for (stage, name), count in failures.items():
            key = (stage, name)
            if key not in total and name != OTHER:
                if names[stage] >= MOST_TYPES:
                    key = (stage, OTHER)
                else:
                    names[stage] += 1
            total[key] = total.get(key, 0) + count
    return total


def _sums(counts: Iterable[dict[K, int]]) -> dict[K, int]:
    total: Counter[K] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def _newest(exemplars: Iterable[dict[int, Exemplar]]) -> dict[int, Exemplar]:
    found = [item for each in exemplars for item in each.items()]
    return dict(sorted(found, key=lambda item: item[1].at))


def _latest(times: Iterable[dict[str, float]]) -> dict[str, float]:
    latest: dict[str, float] = {}
    for each in times:
        for side, at in each.items():
            latest[side] = max(at, latest.get(side, at))
    return latest


def _last(times: Iterable[float | None]) -> float | None:
    return max((at for at in times if at is not None), default=None)
