"""Dead letters of a test's own, on each broker in turn, and `infertool replay-dlq` run as its users run it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.port import Broker, Depth
from tests.support.brokers import TIMEOUT_S, settings
from tests.support.rawstomp import RawStomp
from tests.support.running import CREDENTIALS, NO_BYTECODE, Running, environment, infertool

_numbers = itertools.count(1)
Received = tuple[dict[str, str], bytes]


@dataclass
class DeadLetters:
    """A dead-letter queue, and the queue its letters came from."""

    broker: Any
    folder: Path
    origin: str = field(default_factory=lambda: f"/queue/replay.{next(_numbers)}.{uuid.uuid4().hex[:6]}")
    queue: str = ""

    def __post_init__(self) -> None:
        self.queue = self.queue or f"{self.origin}.dead"

    @property
    def staging(self) -> str:
        return f"{self.queue}.scan"

    def letter(self, number: int, **changes: str) -> dict[str, str]:
        """Return the headers of a dead letter as infertool writes them; names take `_` as they are."""
        return {
            "event_id": f"e-{number}",
            "original_destination": self.origin,
            "original_message_id": f"ID\\cfirst-{number}",
            "replay_count": "0",
            "dlq_stage": "infer",
            "dlq_error_type": "ValueError",
            "dlq_error": "cannot",
            "dlq_attempts": "3",
            "dlq_failed_at": "2026-01-31T03\\c00\\c00.000Z",
            "dlq_first_failed_at": "2026-01-31T02\\c59\\c00.000Z",
            **changes,
        }

    def fill(self, count: int, **changes: str) -> None:
        """Put `count` letters into the queue: event ids e-0, e-1, ..., payloads {"n": 0}, {"n": 1}, ..."""
        self.put((self.letter(n, **changes), b'{"n": %d}' % n) for n in range(count))

    def put(self, letters: Any, *, queue: str | None = None, as_bytes: bool = False) -> None:
        raw = RawStomp(self.broker.stomp_port)
        raw.send(queue or self.queue, letters, as_bytes=as_bytes)
        raw.close()

    def drain(self, queue: str) -> list[Received]:
        """Empty a queue; return what it held."""
        raw = RawStomp(self.broker.stomp_port)
        # A slow machine may be silent for longer than any second: the broker says when it has no more.
        found = raw.drain(queue, is_empty=lambda: not self.depth(queue).size)
        raw.close()
        return found

    def numbers(self, queue: str) -> list[int]:
        """Empty a queue; return its payloads' numbers in order."""
        return [json.loads(body)["n"] for _, body in self.drain(queue)]

    def depth(self, queue: str = "") -> Depth:
        """Return what the broker tells of a queue, by default the dead letters'."""
        broker = brokers.open(settings(self.broker.url))
        broker.connect()
        try:
            depth = broker.measure(queue or self.queue, 60)
        finally:
            broker.close(10)
        assert depth
        return depth

    def arguments(self, *options: str) -> list[str]:
        return ["replay-dlq", self.queue, "--broker", self.broker.url, "--yes", "-o", "json", *options]

    def replay(self, *options: str, code: int = 0, **env: str) -> dict[str, Any]:
        """Run it to its end; return its summary, with what it said under "said"."""
        done = infertool(*self.arguments(*options), **CREDENTIALS, **env)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        summary = json.loads(done.stdout) if done.stdout.strip() else {}
        return {**summary, "said": done.stderr}

    def run_limited(self, code: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end in a process that runs `code` first."""
        return subprocess.run(
            [sys.executable, "-c", f"{code}from infertool.cli.main import run; run()", *self.arguments(*options)],
            capture_output=True, text=True, check=False, timeout=300, env=environment(**CREDENTIALS, **NO_BYTECODE),
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, *options: str, **env: str) -> Running:
        return Running(self.folder / "runs", *self.arguments(*options), **CREDENTIALS, **env)


@pytest.fixture
def dead(any_broker: Any, tmp_path: Path) -> DeadLetters:
    """Dead letters on each of the brokers in turn."""
    return DeadLetters(any_broker, tmp_path)


@pytest.fixture
def real_dead(activemq: Any, tmp_path: Path) -> DeadLetters:
    """Dead letters on the real ActiveMQ, for what only it can do."""
    return DeadLetters(activemq, tmp_path)


@pytest.fixture
def connect() -> Iterator[Callable[[str], Broker]]:
    """Connect brokers; they are closed at the end."""
    opened: list[Broker] = []

    def connect(url: str) -> Broker:
        broker = brokers.open(settings(url))
        broker.connect()
        opened.append(broker)
        return broker

    yield connect
    for broker in opened:
        broker.close(TIMEOUT_S)
