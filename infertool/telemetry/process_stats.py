"""What processes use: CPU, memory, open files and disk, from Linux's /proc."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from infertool.telemetry.control_group import ControlGroup
from infertool.telemetry.stats_document import ProcessStats

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_LONGEST_TEXT: Final = 65_536
# Positions in /proc/PID/stat behind the name: parent, and time in user and system mode, in ticks.
_PARENT, _USER, _SYSTEM = 1, 11, 12


def process_tree(root: int) -> list[int]:
    """Return `root` and all processes that descend from it.

    The kernel tells the children of each thread. Where it is built without that, all processes are looked at.
    """
    if not Path(f"/proc/{root}/task/{root}/children").exists():
        return _by_parents(root)
    found = [root]
    for pid in found:
        found += [
            int(child) for thread in _threads(pid) for child in _read(f"/proc/{pid}/task/{thread}/children").split()
        ]
    return list(dict.fromkeys(found))


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  (once a second; it costs a third)
    except OSError:
        return []


def _by_parents(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields behind the process's name; none if it has ended."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    """Return a text of the kernel's; "" if its process has ended. Called once a second for each process and thread."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(file, _LONGEST_TEXT).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(file)


class ProcessMeter:
    """Measures this process and its descendants. Not thread-safe: CPU is measured between two calls."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._group = ControlGroup()
        self._cpu_s: dict[int, float] = {}
        self._at = time.monotonic()
        self.cpu_seconds = 0.0
        self.open_files = 0

    def measure(self, *, ahead_s: float | None = None) -> ProcessStats:
        """Return the figures; `cpu` is that since the last call. `ahead_s` is what producers' clocks are ahead."""
        pids = process_tree(os.getpid())
        now = time.monotonic()
        elapsed_s, self._at = now - self._at, now
        used_s = self._used_s(pids)
        self.cpu_seconds += used_s
        disk_free, disk_share = _disk(self._state_dir)
        files_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.open_files = max(map(_open_files, pids), default=0)
        return ProcessStats(
            cpu=round(used_s / elapsed_s, 3) if elapsed_s > 0 else None,
            cpu_limit=self._cores(),
            memory_bytes=sum(map(_resident_bytes, pids)),
            memory_limit_bytes=self._group.memory_bytes(),
            open_files=self.open_files,
            open_files_limit=files_limit if files_limit != resource.RLIM_INFINITY else None,
            disk_free_bytes=disk_free,
            disk_free=disk_share,
            clock_skew_s=None if ahead_s is None else max(0.0, round(ahead_s, 3)),
        )

    def _cores(self) -> float:
        """Return the number of cores that may be used: of the affinity, and of the control group's quota."""
        cores = float(len(os.sched_getaffinity(0)))
        quota = self._group.cores()
        return cores if quota is None else min(cores, quota)

    def _used_s(self, pids: Iterable[int]) -> float:
        """Return the CPU seconds since the last call. What a process used before it ended unseen is left out."""
        before, self._cpu_s = self._cpu_s, {}
        used_s = 0.0
        for pid in pids:
            if fields := _stat(pid):
                total_s = (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS_A_SECOND
                self._cpu_s[pid] = total_s
                used_s += max(0.0, total_s - before.get(pid, 0.0))
        return used_s


def _resident_bytes(pid: int) -> int:
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE_BYTES if len(fields) > 1 else 0


def _open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  (once a second; it costs a third)
    except OSError:
        return 0


def _disk(folder: Path) -> tuple[int | None, float | None]:
    """Return the free bytes of the file system that `folder` is or will be on, and their share of the whole."""
    try:
        found = shutil.disk_usage(existing(folder))
    except OSError:
        return None, None
    return found.free, round(found.free / found.total, 4) if found.total else None


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next((each for each in (path, *path.parents) if each.exists()), path)
