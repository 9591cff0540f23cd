"""Starts each embedded server as a process of its own, so that it does not share the caller's interpreter lock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass

from infertool.errors import ServerError
from infertool.telemetry.json_logs import Relay

_STDIN = 0


def end_with_parent() -> None:
    """Send this process SIGTERM when its parent ends for whatever reason.

    The parent starts this process with `stdin=PIPE` and keeps the pipe open; the system closes it when the parent
    ends. That is portable, unlike PR_SET_PDEATHSIG, which is also bound to the parent's thread.
    """
    threading.Thread(target=_await_end_of_input, name="lifeline", daemon=True).start()


def _await_end_of_input() -> None:
    while os.read(_STDIN, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


BROKER = "infertool.embedded.broker"
CHANNEL_SERVER = "infertool.embedded.channel_server"
# Each server's name in log records, and for people.
_NAMES = {BROKER: ("broker", "broker"), CHANNEL_SERVER: ("hub", "channel server")}
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server. It ends with `stop`, or when this process ends for whatever reason."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Terminate the process; kill it after 10 s."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(module: str, *, host: str, port: int, env: dict[str, str] | None = None) -> ServerProcess:
    """Start `module` (BROKER or CHANNEL_SERVER) and wait until it listens. Raises `ServerError`.

    Port 0 takes any free one. The server has a session of its own: Ctrl-C reaches only this process, which stops all
    parts in order.
    """
    command = [sys.executable, "-m", module, "--host", host, "--port", str(port), "--die-with-parent"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, env=env,
    )  # fmt: skip
    name, title = _NAMES[module]
    assert process.stdout is not None  # noqa: S101  (we asked for a pipe)
    assert process.stderr is not None  # noqa: S101  (we asked for a pipe)
    ready = process.stdout.readline()
    if not ready:
        raise _no_start(name, title, f"{host}:{port}", process)
    Relay(process.stderr, {"process": name, "pid": process.pid})
    return ServerProcess(name, json.loads(ready)["port"], process)


def _no_start(name: str, title: str, address: str, process: subprocess.Popen[bytes]) -> ServerError:
    _, output = process.communicate()
    *_, last = output.decode(errors="replace").strip().split("\n")
    last = last or f"exit code {process.returncode}"
    reason = last.removeprefix(f"{name}: ").partition(";")[0]
    what = f"the embedded {title} did not start: {reason}"
    return ServerError(what, address=address, advice="choose another address or port, 0 for any free one")
