"""The metrics that each of our endpoints has: build, health, and what its processes use."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Final

from infertool.telemetry.metric_families import Definition, Samples
from infertool.telemetry.stats_document import ProcessStats

HEALTH_DEFINITIONS: Final = (
    Definition("live", "gauge", "1 unless a restart would help, as /livez says."),
    Definition("ready", "gauge", "1 while events can be taken and confirmed, as /readyz says."),
    Definition("build", "info", "The version of infertool and of Python.", ("version", "python")),
)
PROCESS_DEFINITIONS: Final = (
    Definition(
        "process_cpu_seconds", "counter", "CPU time of the process and its descendants.", (), "seconds", prefix=""
    ),
    Definition("process_resident_memory_bytes", "gauge", "Resident memory of all of them.", (), "bytes", prefix=""),
    Definition("process_open_fds", "gauge", "Open files of the process that has most.", prefix=""),
    Definition("process_max_fds", "gauge", "Open files that a process may have.", prefix=""),
    Definition("process_start_time_seconds", "gauge", "Start of the process, in Unix time.", (), "seconds", prefix=""),
)
COMMON_DEFINITIONS: Final[Sequence[Definition]] = (*HEALTH_DEFINITIONS, *PROCESS_DEFINITIONS)


def common_samples(
    process: ProcessStats, *, version: str, cpu_seconds: float, started: float, live: bool, ready: bool
) -> dict[str, Samples]:
    """Return the samples of `COMMON_DEFINITIONS`. `started` is Unix time."""
    known: dict[str, float | None] = {
        "live": live,
        "ready": ready,
        "process_cpu_seconds": round(cpu_seconds, 3),
        "process_resident_memory_bytes": process.memory_bytes,
        "process_open_fds": process.open_files,
        "process_max_fds": process.open_files_limit,
        "process_start_time_seconds": started,
    }
    samples: dict[str, Samples] = {name: [((), value)] for name, value in known.items() if value is not None}
    return samples | {"build": [((version, platform.python_version()), 1)]}
