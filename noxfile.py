"""`nox` runs everything a change must pass: lint, types, import contracts, and every test with the real servers.

`nox -s bench` measures; it is not part of the default run, since timing never decides a test.
"""

import os
import subprocess
import sys

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "tests"]


# Counts for ever; ends with whoever started it, also when that is killed.
HOG = """
import os, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
while True:
    pass
"""

PROJECT = nox.project.load_toml("pyproject.toml")


def _install(session: nox.Session, *groups: str) -> None:
    # Not `pip install --group`: the pip of Python 3.11 does not know it.
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, and the floors."""
    _install(session, "lint", "test")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports", "--no-cache")


# Most tests wait for a server, so two cores take four at a time. A worker that has none left takes some of another's.
WORKERS = ("--numprocesses=4", "--dist=worksteal")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests: unit, embedded, real ActiveMQ, Node, Chromium. What the machine lacks is installed when it can be."""
    _install(session, "test")
    session.run("pytest", *WORKERS, *session.posargs)


@nox.session
def stress(session: nox.Session) -> None:
    """Run all tests beside a program that keeps every core busy: a test that a slow machine fails is a defect."""
    _install(session, "test")
    hogs = [subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE) for _ in os.sched_getaffinity(0)]
    try:
        session.run("pytest", *WORKERS, *session.posargs)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


@nox.session
def bench(session: nox.Session) -> None:
    """Ratios, side by side in one run, as docs/benchmarks.md explains them."""
    # Two peers that infertool is compared with; no part of it needs them.
    _install(session, "test")
    session.install("stompman", "faststream-stomp")
    session.run("pytest", "tests/bench", "--benchmark-enable", "--benchmark-only", "-s", *session.posargs)
