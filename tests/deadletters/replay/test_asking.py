"""The question before anything moves, answered on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from tests.deadletters.replay.conftest import DeadLetters
from tests.support.running import CREDENTIALS, environment


def answered(dead: DeadLetters, answer: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Run it with a terminal for stdin, on which `answer` was typed."""
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    try:
        return subprocess.run(
            [sys.executable, "-m", "infertool", "replay-dlq", dead.queue, "--broker", dead.broker.url, *options],
            stdin=theirs, capture_output=True, timeout=120, check=False, env=environment(**CREDENTIALS),
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)


def test_yes(dead: DeadLetters) -> None:
    dead.fill(3)
    done = answered(dead, b"y\n")
    assert done.returncode == 0, done.stderr
    assert f"replay 3 of {dead.queue}? [y/N]".encode() in done.stderr
    assert f"replayed 3; 0 of 3 remain in {dead.queue}".encode() in done.stdout
    assert dead.numbers(dead.origin) == [0, 1, 2]


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"\x04"], ids=["no", "nothing", "end"])
def test_anything_else_is_no(dead: DeadLetters, answer: bytes) -> None:
    dead.fill(3)
    done = answered(dead, answer)
    assert done.returncode == 1
    assert b"nothing was moved" in done.stderr
    assert dead.numbers(dead.queue) == [0, 1, 2]


def test_the_preview_tells_what_where_and_since_when(dead: DeadLetters) -> None:
    dead.put(
        [
            (dead.letter(1, dlq_failed_at="2026-01-31T03\\c00\\c00Z"), b'{"n": 1}'),
            (dead.letter(2, dlq_failed_at="2026-02-01T04\\c00\\c00Z", dlq_stage="decode"), b'{"n": 2}'),
            (dead.letter(3, original_destination="/topic/t"), b'{"n": 3}'),
        ]
    )
    said = answered(dead, b"n\n").stderr.decode()
    assert f"{dead.queue}: 3 messages" in said
    assert "2 match" in said
    assert f"to {dead.origin}: 2" in said
    assert "stay: 1, '/topic/t' is not one queue" in said
    assert "oldest 2026-01-31 03:00:00Z, newest 2026-02-01 04:00:00Z" in said
    assert "\n1      decode  ValueError" in said


@pytest.mark.activemq
def test_a_preview_of_a_deep_queue_says_what_it_did_not_see(real_dead: DeadLetters) -> None:
    real_dead.fill(700)
    said = answered(real_dead, b"n\n", "--where", "n < 10").stderr.decode()
    assert "700 messages" in said
    assert "10 match of the first 400; browsing sees no more" in said
