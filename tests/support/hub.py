"""The embedded hub in a process of its own, as `infertool dev` starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from tests.support.present import present

PROGRAM = Path(__file__).with_name("patient_hub.py")


class HubProcess:
    """A hub on 127.0.0.1. `start` after `stop` or `kill` takes the same port again."""

    def __init__(self, port: int = 0, token: str = "", *options: str, **env: str) -> None:
        self.port = port
        self._options = options
        self._env = env
        self._token = token
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/socket/websocket"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def pid(self) -> int:
        assert self._process, "not started"
        return self._process.pid

    def start(self) -> Self:
        command = [sys.executable, str(PROGRAM), "--port", str(self.port), "--die-with-parent", *self._options]
        environment = {**os.environ, "PHOENIX_SERVICE_TOKEN": self._token, **self._env}
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = present(self._process.stdout).readline()
        if not line:
            raise RuntimeError(f"the hub ended at once, exit code {self._process.wait()}")
        self.port = json.loads(line)["port"]
        return self

    def stop(self) -> int:
        """Stop as `infertool dev` does (SIGTERM); return the exit code."""
        return self._end(subprocess.Popen.terminate)

    def kill(self) -> int:
        """End as a crash would, without a close frame."""
        return self._end(subprocess.Popen.kill)

    def wait(self) -> int:
        """Wait for a hub that was sent a signal before; return the exit code."""
        return self._end(lambda process: None)

    def _end(self, how: Any) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        how(process)
        try:
            code = process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        present(process.stdin).close()
        present(process.stdout).close()
        return code

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()
