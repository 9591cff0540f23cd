"""Running `infertool` as its users do: as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.support.forked import start

LONG = 240.0
# A gateway answers 202 after 20 s, in which a consumer may not even have started on a busy machine.
PATIENT_GATEWAY = {"INFERTOOL_GATEWAY__WAIT_S": "240", "INFERTOOL_GATEWAY__MAX_WAIT_S": "240"}
CREDENTIALS = {"ACTIVEMQ_USER": "admin", "ACTIVEMQ_PASSWORD": "admin"}
# For a process that may write no large file: Python would leave a part of a compiled module, and go on with it.
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}


def environment(**extra: str) -> dict[str, str]:
    """Return this environment without settings of the developer's own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("INFERTOOL_")}
    return {**kept, "NO_COLOR": "1", **extra}


def infertool(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `infertool` to its end."""
    process = start([*arguments], environment(**env))
    try:
        written = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    # Line ends as in a text file.
    output, errors = (re.sub(r"\r\n?", "\n", text.decode()) for text in written)
    return subprocess.CompletedProcess(["infertool", *arguments], process.wait(), output, errors)


class Running:
    """An `infertool` process under way. Its stderr goes to a file, so that it can be shown when a test fails."""

    def __init__(self, folder: Path, *arguments: str, **env: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # What `finish` returned, if it was called.
        self.summary: dict[str, Any] = {}
        self.log = folder / f"stderr-{len(list(folder.iterdir()))}.log"
        with self.log.open("wb") as stderr:
            self.process = start([*arguments], environment(**env), stderr)

    def __str__(self) -> str:
        return f"{self.process.args!r}, status {self.process.poll()}:\n{self.log.read_text()[-3000:]}"

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until it has said `text` so many times; it must not end before."""
        deadline = time.monotonic() + LONG
        going = True
        while self.log.read_text().count(text) < times:
            assert going, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            going = self.process.poll() is None  # what it said at its end is still to be read
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def finish(self, timeout_s: float = 300) -> dict[str, Any]:
        """Wait for a clean end; return the last line of stdout, read as JSON."""
        try:
            output, _ = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {timeout_s} s:\n{self.log.read_text()[-3000:]}") from None
        assert self.process.returncode == 0, self.log.read_text()[-3000:]
        self.summary = json.loads(output.splitlines()[-1]) if output.strip() else {}
        return self.summary
