"""What a load run leaves: its plan, its seconds, its sums and its histograms. Plain values; runfile.py keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from infertool.load.latency import Measure
from infertool.telemetry.latencies import Latencies, Percentiles


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What was asked for.

    `started_at` is wall-clock time in seconds, `broker` an address without secrets, `options` the options that differ
    from their defaults, as typed. `measures` says what is measured, also where there was no sample.
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
    """One second: what was `planned` for it, and what happened in it, whichever second that was planned for.

    `t` counts from the end of the warm-up; a negative one is warm-up and is in no sum. `late` were sent, though not in
    time; `dropped` were given up because they were too late, `unsent` because nobody took them.
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


@dataclass(frozen=True, slots=True)
class Counts:
    """The sums of a run, warm-up left out. None: not known, mostly because --confirm or --e2e was not asked for.

    `planned` = `sent` + `dropped` + `unsent`; with --e2e `sent` = `results` + `failures` + `queued` + `lost`. `poison`
    are the broken events among the sent, `dead_lettered` those of the failures that lie in a dead-letter queue now,
    `queued` those that were not seen and may be in the queue, which held `queue_before` and `queue_after` messages.
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


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is reported. `elapsed_s` is the time of counted sending, `cpu_s` the generator's own, all processes.

    `notes` are sentences for people, such as that the generator was the limit. A run whose file ends early is not
    `complete`: its sums are those of the seconds that were written. `planned_s` is the length of the plan, or of what
    was kept of it; `came_out_s` the time up to the last arrival, at least `elapsed_s`. Both leave the warm-up out, and
    are None in the files of older versions.
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
