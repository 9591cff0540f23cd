"""Processes of our own: how they end, how their ending is told, and that none outlives its parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

import infertool
from infertool.workers.process import ConnectedProcess, Process, end_all
from tests.support.present import present
from tests.support.running import environment

LONG = 60


def python(code: str, **streams: Any) -> Process:
    """Run `code` in a process of ours, by a module of Python's own that runs code."""
    return Process("timeit", "-n", 1, "-r", 1, code, **streams)


HANGS = "import time; time.sleep(600)"


@pytest.mark.parametrize(
    ("code", "exit_code", "ending"),
    [
        ("import os; os._exit(0)", 0, "ended with exit code 0"),
        ("import os; os._exit(3)", 3, "ended with exit code 3"),
        ("import os; os.abort()", -signal.SIGABRT, "was killed by SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, "was killed by SIGKILL (by the kernel if memory"),
    ],
)
def test_its_ending_is_described(code: str, exit_code: int, ending: str) -> None:
    process = python(code)
    assert process.wait_end(LONG)
    assert process.has_ended()
    assert process.exit_code() == exit_code
    assert process.ending().startswith(ending)
    process.terminate()
    process.kill()
    process.discard()


def test_one_that_hangs_is_ended_and_described() -> None:
    process = python(HANGS)
    assert not process.wait_end(0.1)
    process.terminate()
    assert process.wait_end(LONG)
    assert process.ending() == "was killed by SIGTERM"
    process.discard()


def test_one_that_does_not_obey_is_killed_at_the_deadline_and_the_others_are_not() -> None:
    disobeys = python(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True);"
        "time.sleep(600)",
        stdout=subprocess.PIPE,
    )
    assert disobeys.stdout.readline() == b"ready\n"
    obeys = python(
        "import os, signal, time; signal.signal(signal.SIGTERM, lambda *_: os._exit(7)); print('ready', flush=True);"
        "time.sleep(600)",
        stdout=subprocess.PIPE,
    )
    assert obeys.stdout.readline() == b"ready\n"
    for process in (disobeys, obeys):
        process.terminate()
    assert obeys.wait_end(LONG)
    end_all([disobeys, obeys], timeout_s=0.2)
    assert disobeys.exit_code() == -signal.SIGKILL
    assert obeys.exit_code() == 7


def test_what_it_started_ends_with_it() -> None:
    process = python(
        "import os, subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True); os._exit(0)",
        stdout=subprocess.PIPE,
    )
    left = psutil.Process(int(process.stdout.readline()))
    assert process.exit_code() == 0
    wait_gone(left)
    process.discard()


def test_a_connected_process_is_heard() -> None:
    process = ConnectedProcess("infertool.filters.evaluator", 2.0, 1 << 30)
    assert process.wait(LONG)
    connection = Connection(process.socket.detach())
    assert connection.recv() == "ready"
    connection.send(("1 < 2", {}))
    assert process.wait(LONG)
    assert connection.recv() == (True, None)
    assert not process.wait(0)
    connection.close()
    assert process.wait(LONG)
    assert process.wait_end(LONG)
    assert process.exit_code() == 0
    process.discard()


def test_nothing_in_the_working_folder_takes_the_place_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "timeit.py").write_text("print('mine')")
    code = (
        "import subprocess; from infertool.workers.process import Process;"
        "process = Process('timeit', '-n', 1, 'pass', stdout=subprocess.PIPE);"
        "print(process.stdout.read()); process.discard()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=LONG
    )
    assert "1 loop" in done.stdout, done.stderr
    assert "mine" not in done.stdout


# A regular expression that takes for ever holds the interpreter lock.
HOLDS_THE_LOCK = "import re; re.match('(a*)*b', 'a' * 60)"
PARENT = """
import os, sys, time
from infertool.workers.process import Process
print(Process("timeit", "-n", 1, "-r", 1, sys.argv[1]).pid, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("code", [HANGS, HOLDS_THE_LOCK], ids=["sleeps", "holds the interpreter lock"])
@pytest.mark.parametrize("going", ["returns", "exits", "killed", "becomes another program"])
def test_it_ends_when_its_parent_is_gone_however_it_goes(code: str, going: str) -> None:
    last = {
        "exits": "os._exit(1)",
        "becomes another program": "os.execv('/bin/true', ['true'])",
    }.get(going, "")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT + last, code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    child = psutil.Process(int(present(parent.stdout).readline()))
    assert child.is_running()
    if going == "killed":
        parent.kill()
    parent.communicate(b"\n", timeout=LONG)
    wait_gone(child)


def wait_gone(process: psutil.Process) -> None:
    """Wait for the end; a zombie that nobody reaps has ended."""
    deadline = time.monotonic() + LONG
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_processes_are_started_in_one_place() -> None:
    """`watch` starts `replay-dlq` as well, which must outlive it, and an alert may start a command of the user's."""
    folder = Path(infertool.__file__).parent
    starters = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        if any(word in path.read_text() for word in ("Popen(", "os.pipe(", "os.fork(", "multiprocessing.get_context"))
    }
    assert starters == {"workers/process.py", "watch/replay.py", "alerts/sinks/command.py"}
