"""Standard output that cannot be written, at the report: the work is done, and is told on stderr, in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from tests.deadletters.archive.conftest import DeadQueue
from tests.support.running import CREDENTIALS, environment

PLACES = ["/dev/full", "closed pipe"]


def run_to(
    dead: DeadQueue, place: str, *arguments: str, stderr: Any = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run a command with `place` as its stdout."""
    if place == "closed pipe":
        reader, stdout = os.pipe()
        os.close(reader)
    else:
        stdout = os.open(place, os.O_WRONLY)
    try:
        return subprocess.run(
            [sys.executable, "-m", "infertool", *arguments, "--broker", dead.broker.url],
            stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL, text=True, check=False, timeout=120,
            env=environment(**CREDENTIALS),
        )  # fmt: skip
    finally:
        os.close(stdout)


def check(done: subprocess.CompletedProcess[str], says: str) -> None:
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith("infertool: standard output cannot be written: ")
    assert says in last


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", ["table", "json"])
def test_what_was_done_is_told(dead: DeadQueue, place: str, form: str) -> None:
    dead.fill(3)
    check(run_to(dead, place, "replay-dlq", dead.queue, "--yes", "-o", form), "this was done: replayed 3;")
    assert dead.numbers(dead.origin) == [0, 1, 2]
    dead.fill(3)
    done = run_to(dead, place, "drain-dlq", dead.queue, "--to", str(dead.file), "--yes", "-o", form)
    check(done, f"this was done: archived 3 in {dead.file}, removed 3 from {dead.queue}")
    assert dead.archived_numbers() == [0, 1, 2]
    done = run_to(dead, place, "replay-dlq", "--from", str(dead.file), "--yes", "-o", form)
    check(done, f"this was done: sent 3 from {dead.file}")
    assert dead.numbers(dead.origin) == [0, 1, 2]


@pytest.mark.parametrize("options", [[], ["-o", "jsonl"], ["--group-by", "stage"], ["--id", "e-1"]])
def test_a_look_says_why_it_shows_nothing(dead: DeadQueue, options: list[str]) -> None:
    dead.fill(3)
    check(run_to(dead, "/dev/full", "peek-dlq", dead.queue, *options), "")
    done = run_to(dead, "closed pipe", "peek-dlq", dead.queue, *options)
    assert (done.returncode, "Traceback" in done.stderr, "cannot be written" in done.stderr) == (0, False, False)


def test_a_stderr_that_takes_nothing_does_not_keep_the_work_from_being_done(dead: DeadQueue) -> None:
    dead.fill(3)
    with open("/dev/full", "wb") as full:  # noqa: PTH123  # a device
        assert run_to(dead, "/dev/null", "replay-dlq", dead.queue, "--yes", stderr=full).returncode == 0
    assert dead.numbers(dead.origin) == [0, 1, 2]
