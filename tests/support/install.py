"""Install what a machine lacks for the tests, when this session can; else the error says what to run."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "infertool-tests"


def npm(packages: dict[str, str]) -> Path:
    """Install `packages` (name to exact version) and return the folder that holds `node_modules`.

    The folder is kept in the user's cache, one for each set of packages.
    """
    digest = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()[:16]
    folder = CACHE / "npm" / digest
    if folder.exists():
        return folder
    specs = [f"{name}@{version}" for name, version in packages.items()]
    if not shutil.which("npm"):
        apt("nodejs", "npm")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Built aside and renamed, so that an interrupted install is never taken for a finished one.
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{digest}."))
    _npm_install(aside, specs)
    try:
        aside.rename(folder)
    except OSError:  # another session was faster
        shutil.rmtree(aside)
    return folder


def _npm_install(folder: Path, specs: list[str]) -> None:
    (folder / "package.json").write_text('{"private": true}')
    command = ["npm", "install", "--save-exact", "--no-audit", "--no-fund", "--loglevel=error", *specs]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")


def apt(*packages: str) -> None:
    """Install Debian packages that are missing, when this is root on Debian; else say how."""
    missing = [name for name in packages if not _has_debian_package(name)]
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RuntimeError(f"the tests need Debian packages; run: sudo {' '.join(command)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    patient = ["-o", "DPkg::Lock::Timeout=300"]
    with _alone():
        for step in (["apt-get", "update", "-q"], [*command, *patient]):
            subprocess.run(step, check=True, env=environment, stdout=subprocess.DEVNULL)


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process of a test run install at a time: apt-get update does not wait for another."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _has_debian_package(name: str) -> bool:
    if not shutil.which("dpkg-query"):
        return False
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", name]
    return subprocess.run(query, capture_output=True, text=True).stdout == "installed"
