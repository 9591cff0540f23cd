"""Limits of control groups: both versions, nested, as a container sees them, and of a real group."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infertool.telemetry.control_group import ControlGroup
from infertool.telemetry.process_stats import _by_parents, process_tree
from tests.support.memorylimit import memory_limit

V2 = "0::/user.slice/app.service\n"
V1 = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"
BOTH = "4:memory:/docker/abc\n0::/docker/abc\n"
NO_LIMIT = 9223372036854771712


def mount(kind: str, at: str, options: str, top: str = "/") -> str:
    return f"31 23 0:28 {top} {at} rw,nosuid - {kind} cgroup rw,{options}\n"


MEMORY, CPU = "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu,cpuacct"
UNIFIED = mount("cgroup2", "/sys/fs/cgroup", "nsdelegate")
SPLIT = mount("cgroup", MEMORY, "memory") + mount("cgroup", CPU, "cpu,cpuacct")
# A container without a namespace of its own: it sees the outer path, and its own group mounted.
INNER = mount("cgroup", MEMORY, "memory", "/docker/abc") + mount("cgroup", CPU, "cpu,cpuacct", "/docker/abc")


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "memory", "cores"),
    [
        ("", "", {}, None, None),
        (V2, UNIFIED, {}, None, None),
        (V2, UNIFIED, {"/sys/fs/cgroup/user.slice/app.service/memory.max": "1000",
                       "/sys/fs/cgroup/user.slice/app.service/cpu.max": "150000 100000"}, 1000, 1.5),
        # A limit above is one as well; max is none.
        (V2, UNIFIED, {"/sys/fs/cgroup/user.slice/app.service/memory.max": "max",
                       "/sys/fs/cgroup/user.slice/memory.max": "500", "/sys/fs/cgroup/memory.max": "900",
                       "/sys/fs/cgroup/user.slice/cpu.max": "50000 100000",
                       "/sys/fs/cgroup/user.slice/app.service/cpu.max": "max 100000"}, 500, 0.5),
        # In a container's own namespace the group is the root.
        ("0::/\n", UNIFIED, {"/sys/fs/cgroup/memory.max": "700", "/sys/fs/cgroup/cpu.max": "200000 100000"}, 700, 2.0),
        ("0::/../other\n", UNIFIED, {"/sys/fs/cgroup/memory.max": "700"}, 700, None),
        (V1, SPLIT, {f"{MEMORY}/docker/abc/memory.limit_in_bytes": str(NO_LIMIT),
                     f"{CPU}/docker/abc/cpu.cfs_quota_us": "-1",
                     f"{CPU}/docker/abc/cpu.cfs_period_us": "100000"}, None, None),
        (V1, SPLIT, {f"{MEMORY}/docker/abc/memory.limit_in_bytes": "4000",
                     f"{MEMORY}/docker/memory.limit_in_bytes": "3000",
                     f"{MEMORY}/memory.limit_in_bytes": str(NO_LIMIT),
                     f"{CPU}/docker/cpu.cfs_quota_us": "25000",
                     f"{CPU}/docker/cpu.cfs_period_us": "100000"}, 3000, 0.25),
        (V1, INNER, {f"{MEMORY}/memory.limit_in_bytes": "2000", f"{CPU}/cpu.cfs_quota_us": "300000",
                     f"{CPU}/cpu.cfs_period_us": "100000"}, 2000, 3.0),
        (BOTH, SPLIT + mount("cgroup2", "/sys/fs/cgroup/unified", "nsdelegate"),
         {f"{MEMORY}/docker/abc/memory.limit_in_bytes": "4000"}, 4000, None),
        # Names of mount points are any bytes.
        (V2, "30 23 0:27 / /mnt/gr\udcfc rw - ext4 /dev/sda rw\n" + UNIFIED,
         {"/sys/fs/cgroup/user.slice/app.service/memory.max": "1000"}, 1000, None),
        ("garbage\n::\n9\n", "x - y\ncgroup - cgroup2\n", {}, None, None),
    ],
    ids=["none", "v2 without limits", "v2", "v2 nested", "v2 namespace", "v2 outside", "v1 without limits", "v1 nested",
         "v1 container", "hybrid", "no UTF-8", "garbage"],
)  # fmt: skip
def test_the_least_limit_counts(
    tmp_path: Path, groups: str, mounts: str, files: dict[str, str], memory: int | None, cores: float | None
) -> None:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(groups)
    (proc / "mountinfo").write_text(mounts, errors="surrogateescape")
    for name, text in files.items():
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    found = ControlGroup(proc, tmp_path)
    assert (found.memory_bytes(), found.cores()) == (memory, cores)


def test_a_real_group() -> None:
    """On a machine where we may make a group of version 1; elsewhere only that reading does no harm."""
    program = (
        "import sys; sys.stdin.readline(); from infertool.telemetry.control_group import ControlGroup;"
        "print(ControlGroup().memory_bytes())"
    )
    with memory_limit(512 * 1024 * 1024) as limit:
        process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if limit:
            limit.hold(process.pid)
        output, _ = process.communicate(b"go\n", timeout=300)
        assert output.strip() == (b"%d" % (512 * 1024 * 1024) if limit else b"%s" % output.strip())


def test_the_tree_of_processes() -> None:
    nested = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()']);"
        "print(flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout
        child.stdout.readline()
        [grandchild] = psutil.Process(child.pid).children()
        for found in (process_tree(os.getpid()), _by_parents(os.getpid())):
            assert found[0] == os.getpid()
            assert {child.pid, grandchild.pid} <= set(found)
        assert process_tree(child.pid) == _by_parents(child.pid) == [child.pid, grandchild.pid]
    finally:
        child.communicate(timeout=300)
    assert child.pid not in process_tree(os.getpid())
