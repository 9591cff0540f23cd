"""A dead-letter queue of a test's own, on each broker in turn, and the commands run as their users run them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infertool.deadletters.archive import records
from infertool.message import Message
from tests.deadletters.replay.conftest import DeadLetters
from tests.support.rawstomp import RawStomp
from tests.support.running import CREDENTIALS, Running, infertool


@dataclass
class DeadQueue(DeadLetters):
    """Dead letters, and a file to archive them in."""

    suffix: str = "jsonl"

    @property
    def file(self) -> Path:
        return self.folder / f"dead.{self.suffix}"

    def command(self, name: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command at this broker to its end."""
        done = infertool(name, *arguments, "--broker", self.broker.url, **CREDENTIALS)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def peek(self, *options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.command("peek-dlq", self.queue, *options, code=code)

    def drained(self, *options: str, code: int = 0) -> dict[str, Any]:
        """Drain to the file; return the summary, with what was said under "said"."""
        done = self.command("drain-dlq", self.queue, "--to", str(self.file), "--yes", "-o", "json", *options, code=code)
        return {**(json.loads(done.stdout) if done.stdout else {}), "said": done.stderr}

    def start_drain(self) -> Running:
        return Running(self.folder / "runs", *self.drain_arguments(), **CREDENTIALS)

    def drain_arguments(self) -> list[str]:
        return [
            "drain-dlq", self.queue, "--to", str(self.file), "--yes", "-o", "json", "--broker", self.broker.url,
        ]  # fmt: skip

    def restored(self, *options: str, code: int = 0) -> dict[str, Any]:
        """Send the file back; return the summary, with what was said under "said"."""
        done = self.command("replay-dlq", "--from", str(self.file), "--yes", "-o", "json", *options, code=code)
        return {**(json.loads(done.stdout) if done.stdout else {}), "said": done.stderr}

    def archived(self) -> list[Message]:
        return [message for batch in records.read(self.file) for message in batch.messages]

    def archived_numbers(self) -> list[int]:
        return [json.loads(message.body)["n"] for message in self.archived()]

    def raw(self) -> RawStomp:
        return RawStomp(self.broker.stomp_port)


@pytest.fixture
def dead(any_broker: Any, tmp_path: Path) -> DeadQueue:
    """Dead letters on each of the brokers in turn."""
    return DeadQueue(any_broker, tmp_path)


@pytest.fixture
def real_dead(activemq: Any, tmp_path: Path) -> DeadQueue:
    """Dead letters on the real ActiveMQ, for what only it can do."""
    return DeadQueue(activemq, tmp_path)
