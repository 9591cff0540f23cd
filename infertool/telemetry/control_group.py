"""Limits of the control groups that this process is in, versions 1 and 2: its own and those above it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

# Version 1 shows no limit as a number near the largest of 64 bits.
_LEAST_UNLIMITED: Final = 1 << 60
# Fields of /proc/PID/mountinfo: what of the hierarchy is mounted, and where. Type and options follow a "-".
_ROOT, _MOUNT_POINT = 3, 4


class ControlGroup:
    """Reads limits, which may change. `proc` is the folder of the process, `root` that of the file system."""

    def __init__(self, proc: Path = Path("/proc/self"), root: Path = Path("/")) -> None:
        groups, mounts = _groups(proc), list(_mounts(proc))
        self._unified = _folders(groups.get(""), [(top, at) for kind, _, top, at in mounts if kind == "cgroup2"], root)
        self._memory = _of_controller("memory", groups, mounts, root)
        self._cpu = _of_controller("cpu", groups, mounts, root)

    def memory_bytes(self) -> int | None:
        """Return the least limit on memory; None without one."""
        limits = [_number(folder / "memory.max") for folder in self._unified]
        limits += [_number(folder / "memory.limit_in_bytes") for folder in self._memory]
        return min((limit for limit in limits if limit is not None and limit < _LEAST_UNLIMITED), default=None)

    def cores(self) -> float | None:
        """Return the least quota on CPU time; None without one."""
        quotas = [_quota(*_line(folder / "cpu.max").partition(" ")[::2]) for folder in self._unified]
        quotas += [
            _quota(_line(folder / "cpu.cfs_quota_us"), _line(folder / "cpu.cfs_period_us")) for folder in self._cpu
        ]
        return min((quota for quota in quotas if quota is not None), default=None)


_Mount = tuple[str, tuple[str, ...], str, str]


def _groups(proc: Path) -> Mapping[str, str]:
    """Return the path of the group by controller; by "" that of version 2."""
    groups: dict[str, str] = {}
    for line in filter(None, _text(proc / "cgroup").split("\n")):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        groups |= dict.fromkeys(controllers.split(","), path)
    return groups


def _mounts(proc: Path) -> Iterator[_Mount]:
    """Yield type, options, mounted part and place of each hierarchy."""
    for line in _text(proc / "mountinfo").split("\n"):
        place, _, kind = line.partition(" - ")
        fields, told = place.split(), kind.split()
        if told and told[0] in {"cgroup", "cgroup2"} and len(fields) > _MOUNT_POINT:
            yield told[0], tuple(told[-1].split(",")), fields[_ROOT], fields[_MOUNT_POINT]


def _of_controller(name: str, groups: Mapping[str, str], mounts: list[_Mount], root: Path) -> list[Path]:
    found = [(top, at) for kind, options, top, at in mounts if kind == "cgroup" and name in options]
    return _folders(groups.get(name), found, root)


def _folders(path: str | None, mounts: list[tuple[str, str]], root: Path) -> list[Path]:
    """Return the folder of the group, and those above it up to the mount point."""
    if path is None or not mounts:
        return []
    # A container sees its own group mounted, and may see the path that the group has outside.
    top, at = mounts[0]
    inside = PurePosixPath(path).relative_to(top) if PurePosixPath(path).is_relative_to(top) else PurePosixPath()
    place = root / at.lstrip("/")
    return [place / each for each in (inside, *inside.parents)] if ".." not in inside.parts else [place]


def _quota(quota: str, period: str) -> float | None:
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None


def _number(path: Path) -> int | None:
    text = _line(path)
    return int(text) if text.isdecimal() else None


def _line(path: Path) -> str:
    return _text(path).split("\n", 1)[0].strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")  # names of mount points may be any bytes
    except OSError:
        return ""
