"""A Node.js program that reports in JSON lines."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, Self

from tests.support.install import apt
from tests.support.present import present

FOLDER = Path(__file__).parent


class NodeProgram:
    """Runs `script`; `send` writes a command, `wait_for` reads on to a report."""

    def __init__(self, script: str, *arguments: str, timeout_s: float = 240) -> None:
        if not shutil.which("node"):
            apt("nodejs")
        self._command = ["node", str(FOLDER / script), *arguments]
        self._timeout_s = timeout_s
        self._reports: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        present(self._process.stdin).close()
        try:
            self._process.wait(120)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        self._reader.join(120)
        present(self._process.stdout).close()

    def send(self, command: str, **options: object) -> None:
        present(self._process.stdin).write(json.dumps({"command": command, **options}) + "\n")
        present(self._process.stdin).flush()

    def wait_for(self, what: str, **expected: object) -> dict[str, Any]:
        """Return the next report of this kind with these values; what comes before it is dropped."""
        seen: list[dict[str, Any]] = []
        while True:
            try:
                report = self._reports.get(timeout=self._timeout_s)
            except queue.Empty:
                raise AssertionError(f"no {what} {expected} within {self._timeout_s} s; saw {seen}") from None
            if report is None:
                raise AssertionError(f"the program ended before {what} {expected}; saw {seen}")
            if report["what"] == what and all(report.get(key) == value for key, value in expected.items()):
                return report
            seen.append(report)

    def _read(self) -> None:
        for line in present(self._process.stdout):
            self._reports.put(json.loads(line))
        self._reports.put(None)
