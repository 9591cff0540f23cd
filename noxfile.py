"""`nox` runs everything a change must pass: lint, types, import contracts, and every test with the real servers.

`nox -s bench` measures; it is not part of the default run, since timing never decides a test.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

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
    """Style, types, and the layers."""
    _install(session, "lint", "test")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports", "--no-cache")


# Most tests wait for a server, so two cores take six at a time. A worker that has none left takes some of another's.
WORKERS = ("--numprocesses=6", "--dist=worksteal")


def _compile_tests(session: nox.Session) -> None:
    """Compile all tests in two processes: the workers begin at once, and each would compile all of them for itself."""
    folders = sorted(str(each.parent) for each in Path("tests").glob("*/__init__.py"))
    collect = [f"{session.bin}/pytest", "--collect-only", "-qq"]
    halves = [subprocess.Popen([*collect, *half], stdout=subprocess.DEVNULL) for half in (folders[::2], folders[1::2])]
    for each in halves:
        each.wait()


def _interpreters() -> list[str]:
    """Return a Python of each version that infertool supports, of those on this machine."""
    found = []
    for version in ("3.11", "3.12", "3.13"):
        of_pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python3"))
        found += list(filter(_works, filter(None, [shutil.which(f"python{version}"), *map(str, of_pyenv)])))[:1]
    return found


def _works(python: str) -> bool:
    # A shim of pyenv is there for each version that it knows, also for those it does not run now.
    return subprocess.run([python, "-c", "import ssl, sqlite3"], capture_output=True, check=False).returncode == 0


@nox.session(python=_interpreters()[-1:] or None)
def tests(session: nox.Session) -> None:
    """All tests, with real servers, Node and Chromium, on the newest Python that is found.

    What the machine lacks is installed when it can be.
    """
    _install(session, "test")
    if not session.posargs:
        _compile_tests(session)
    session.run("pytest", *WORKERS, *session.posargs)


# The fast subset: no server but what a test starts itself, no browser, no screen. Less than a minute on two idle cores.
UNIT = (
    "consumer",
    "settings",
    "telemetry",
    "deadletters/test_marks.py",
    "filters",
    "channels",
    "models",
    "values",
    "watch/test_keys.py",
    "watch/test_listing.py",
    "watch/test_state.py",
    "watch/test_formatting.py",
    "net",
    "workers",
)
NEEDS_NOTHING = (
    "not (activemq or artemis or activemq6 or rabbitmq or kafka or prometheus or nginx or browser or node or long)"
)


@nox.session(python=_interpreters())
def unit(session: nox.Session) -> None:
    """The fast subset, worker processes included, on each Python that is found."""
    _install(session, "test")
    session.run("pytest", *WORKERS, "-m", NEEDS_NOTHING, *(f"tests/{name}" for name in UNIT), *session.posargs)


@nox.session
def stress(session: nox.Session) -> None:
    """Run all tests, those of deaths at full size, beside a program that keeps every core busy.

    A test that a slow machine fails is a defect.
    """
    _install(session, "test")
    hogs = [subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE) for _ in os.sched_getaffinity(0)]
    try:
        session.run("pytest", *WORKERS, *session.posargs, env={"TESTS_FULL": "1"})
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


@nox.session
def bench(session: nox.Session) -> None:
    """Ratios, side by side in one run, as docs/benchmarks.md explains them."""
    # Peers that infertool is compared with; no part of it needs them.
    _install(session, "test")
    session.install("stompman", "faststream-stomp", "aiokafka", "faststream[kafka]")
    session.run("pytest", "tests/bench", "--benchmark-enable", "--benchmark-only", "-s", *session.posargs)
