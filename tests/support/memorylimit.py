"""A limit of memory for a process and what it starts, past which the kernel kills: a control group within our own."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_TIMEOUT_S = 60.0
# Where the controller of memory is mounted by itself; the unified hierarchy has no limits within a group of processes.
_ROOT = Path("/sys/fs/cgroup/memory")


class MemoryLimit:
    """A control group in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hold(self, *pids: int) -> None:
        """Put processes under the limit; what they start from now on is under it, too."""
        for pid in pids:
            (self._folder / "cgroup.procs").write_text(f"{pid}")

    def kills(self) -> int:
        """Return how many processes the kernel has killed here."""
        lines = (self._folder / "memory.oom_control").read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])


@contextlib.contextmanager
def memory_limit(limit_bytes: int) -> Iterator[MemoryLimit | None]:
    """Yield a limit, or None where this user may not set one."""
    folder = _own_group() / f"infertool-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        yield None
        return
    try:
        (folder / "memory.limit_in_bytes").write_text(f"{limit_bytes}")
        yield MemoryLimit(folder)
    finally:
        _remove(folder)


def _own_group() -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return _ROOT / path.lstrip("/")
    return _ROOT / "none"


def _remove(folder: Path) -> None:
    """Remove a group as soon as its processes have ended."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
