"""Every command of docs/dead-letters.md works as it stands there, on a queue of 450 dead letters."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infertool.deadletters.selection import FIELDS
from tests.deadletters.archive.conftest import DeadQueue
from tests.support import activemq
from tests.support.running import CREDENTIALS, environment

TEXT = (Path(__file__).parents[3] / "docs" / "dead-letters.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
QUEUE, ORIGIN = "ai.events.dlq", "/queue/runbook.origin"
OTHERS = ("DLQ.orders", "ai.events.parked")
LETTERS = 450
ARCHIVE = "dead.jsonl.zst"
QUESTION_S = 300
# Commands that only look, or leave the originals where they are.
HARMLESS = re.compile("peek-dlq|--dry-run|--copy")


class Runbook(DeadQueue):
    """The queue of the runbook, filled so that each command has something to do."""

    def fill_all(self, command: str) -> None:
        """Fill what the command is about: half of the letters failed just now, half at the time the runbook names."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace(":", "\\c")
        old = "2026-01-31T03\\c00\\c00.000Z"
        for queue in (QUEUE, *(other for other in OTHERS if other in command)):
            self.put(
                (
                    (
                        self.letter(
                            n,
                            original_destination=ORIGIN,
                            dlq_failed_at=now if n % 2 else old,
                            dlq_stage="decode" if n % 9 else "infer",
                            dlq_error="timeout",
                            model_version="7",
                            replay_count=str(n % 2),
                        ),
                        b'{"n": %d, "customer": {"tier": "gold"}, "amount": 101.5}' % n,
                    )
                    for n in range(LETTERS if queue == QUEUE else 20)
                ),
                queue=f"/queue/{queue}",
            )

    def run(self, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run it on a terminal that answers its question: the queue's name where that is asked for, else y."""
        _, *words = shlex.split(command)
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "infertool", *words],
            cwd=folder, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(
                **CREDENTIALS, INFERTOOL_BROKER__URL=self.broker.url, PYTHONPATH=str(Path(__file__).parents[3])
            ),
        )  # fmt: skip
        os.close(theirs)
        os.write(ours, b"ai.events.dlq\n" if "--discard" in words else b"y\n")
        out, err = process.communicate(timeout=QUESTION_S)
        os.close(ours)
        return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.fixture
def runbook(activemq: activemq.ActiveMQ, tmp_path: Path) -> Iterator[Runbook]:
    """On the real ActiveMQ with its default policy, where things are hardest. A test empties the queue at its end."""
    python = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert python
    (tmp_path / "fix.py").write_text(python[1])
    yield (made := Runbook(activemq, tmp_path, queue=f"/queue/{QUEUE}"))
    made.drain(made.queue)


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 20
    assert all(command.startswith("infertool ") for command in COMMANDS)


@pytest.mark.activemq
@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_the_command_works(runbook: Runbook, tmp_path: Path, command: str) -> None:
    runbook.fill_all(command)
    if "--from" in command:
        assert runbook.run(f"infertool drain-dlq --to {ARCHIVE} --yes", tmp_path).returncode == 0
    done = runbook.run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout or "--dry-run" in command
    here = len(runbook.drain(runbook.queue))
    if "--from" in command:
        assert here == 0
    elif HARMLESS.search(command) or "DLQ.orders" in command:
        assert here == LETTERS
    else:
        assert here < LETTERS


def test_every_option_it_speaks_of_is_there() -> None:
    helps = "".join(
        subprocess.run(
            [sys.executable, "-m", "infertool", name, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for name in ("peek-dlq", "replay-dlq", "drain-dlq", "consume")
    )
    for option in set(re.findall(r"(?<![-|])--[a-z][a-z-]+", TEXT)):
        assert option in helps, option


def test_every_field_of_group_by_is_named() -> None:
    sentence = re.search(r"`--group-by` knows (.*?)\. ", TEXT, re.DOTALL)
    assert sentence
    assert set(re.findall(r"`(\w+)`", sentence[1])) == set(FIELDS)
