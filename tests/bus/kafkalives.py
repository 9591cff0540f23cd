"""Consumers of one Kafka topic that die and come back, and what each life of theirs began, ended and published."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.kafka import Kafka
from tests.support.running import LONG, environment

GROUP = "g"
CONCURRENCY = 4
# The model notes when it begins and ends an event: a line each, whole even when the process is killed.
_MODEL = """
import os, time
notes = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
tried = set()
class Model:
    def predict(self, payload):
        number = payload["n"]
        os.write(notes, b"+%d\\n" % number)
        time.sleep(payload["s"])
        first = number not in tried
        tried.add(number)
        os.write(notes, b"-%d\\n" % number)
        if payload["fails"] == "always" or (payload["fails"] == "once" and first):
            raise ValueError("as it was told")
        return {"n": number}
"""


def eventually(condition: Callable[[], object], told: Callable[[], str] = str) -> None:
    """Wait until `condition` holds; `told` says what is known if it never does."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.02)


class Life:
    """One process of a member, from its start to its death, or its stop."""

    def __init__(self, folder: Path, name: str, command: list[str], member: dict[str, object], **env: str) -> None:
        self.name = name
        self._notes, self._published, self.log = (folder / f"{name}.{kind}" for kind in ("notes", "out", "log"))
        self._notes.touch()
        own = {"NOTES": str(self._notes), "INFERTOOL_BROKER__KAFKA": json.dumps(member), **env}
        with self._published.open("wb") as out, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=log, stdin=subprocess.DEVNULL, env=environment(**own)
            )
        self.pid = self._process.pid
        # How many notes were there at the newest death of another, and at the newest try to stop it.
        self._seen = 0
        self._noted = 0

    def begun(self) -> list[int]:
        return [int(line[1:]) for line in self._lines() if line[0] == "+"]

    def ended(self) -> list[int]:
        return [int(line[1:]) for line in self._lines() if line[0] == "-"]

    def look(self) -> list[int]:
        """Return what was begun since the last look."""
        lines = self._lines()
        since, self._seen = self._seen, len(lines)
        return [int(line[1:]) for line in lines[since:] if line[0] == "+"]

    def _lines(self) -> list[str]:
        return self._notes.read_text().splitlines()

    def results(self) -> list[int]:
        """Return the numbers of the events whose results were published."""
        # The last line may have been cut off by the death.
        whole = [json.loads(line) for line in self._published.read_bytes().split(b"\n")[:-1]]
        return [each["original_payload"]["n"] for each in whole if each["status"] == "SUCCESS"]

    def has_begun(self, count: int) -> bool:
        """Return True if it has begun so many events: it has joined its group, and works."""
        assert self._process.poll() is None, self.told()
        return len(self.begun()) >= count

    def stops_at_work(self) -> bool:
        """Stop it where it stands. Let it go on and return False if one event alone may be in work.

        A kill then would be blamed on that event: nothing tells it from a death that the event causes.
        """
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)
        lines = self._lines()
        open_count = sum(1 if line[0] == "+" else -1 for line in lines)
        is_quiet = open_count == 0 and len(lines) == self._noted
        self._noted = len(lines)
        if open_count > 1 or is_quiet:
            return True
        self._process.send_signal(signal.SIGCONT)
        return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it as an administrator does; it must end well."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(LONG)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} does not end\n{self.told()}") from None
        assert code == 0, self.told()

    def told(self) -> str:
        """Return what it said last."""
        return f"{self.name}: {self.log.read_text()[-5000:]}"


@dataclass
class Members:
    """A group. `lives` are all that there were, in the order of their starts; the newest of a member is the last."""

    broker: Kafka
    topic: str
    folder: Path
    lives: list[Life] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "model.py").write_text(_MODEL)

    def start(self, member: str, *, static: bool) -> Life:
        """Start a member. A static one gets its partitions back at once, and nothing moves; others make rebalances."""
        command = [
            sys.executable, "-m", "infertool", "consume", "--broker", self.broker.topic_url(self.topic, group=GROUP),
            "--model", f"{self.folder}/model.py:Model", "--publish", "stdout", "--max-attempts", "2",
            "--window", "50", "--concurrency", str(CONCURRENCY),
        ]  # fmt: skip
        properties: dict[str, object] = {"heartbeat.interval.ms": 500, "session.timeout.ms": 10_000}
        if static:
            properties["group.instance.id"] = member
        self.lives.append(
            Life(
                self.folder, f"{member}-{len(self.lives)}", command, properties,
                INFERTOOL_CONSUME__STATE_DIR=str(self.folder / "state"),
                INFERTOOL_CONSUME__RETRY_BASE_S="0.01",
                INFERTOOL_CONSUME__STOP_DEADLINE_S="2",
                INFERTOOL_TELEMETRY__LOG_LEVEL="debug",
            )
        )  # fmt: skip
        return self.lives[-1]

    def look(self) -> set[int]:
        """Return what was begun since the last look, by any."""
        return {number for life in self.lives for number in life.look()}

    def begun(self) -> set[int]:
        return {number for life in self.lives for number in life.begun()}

    def results(self) -> set[int]:
        return {number for life in self.lives for number in life.results()}

    def end(self) -> None:
        for life in self.lives:
            life.kill()


def payload(number: int, *, seconds: float, fails: str) -> bytes:
    """Return an event that takes so long, and fails `never`, `once` in a process or `always`."""
    return json.dumps({"n": number, "s": seconds, "fails": fails}).encode()


def keep(name: str, lines: Iterable[str]) -> None:
    """Write what a run counted into the folder of the environment variable TESTS_KEEP, if there is one."""
    if folder := os.environ.get("TESTS_KEEP"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / name).write_text("\n".join(lines) + "\n")
