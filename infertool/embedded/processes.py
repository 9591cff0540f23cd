"""Starts each embedded server as a process of its own, so that it does not share the caller's interpreter lock."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infertool.errors import ServerError
from infertool.telemetry.json_logs import Relay
from infertool.workers.process import Process, end_all

BROKER = "infertool.embedded.broker"
CHANNEL_SERVER = "infertool.embedded.channel_server"
# Each server's name in log records, and for people.
_NAMES = {BROKER: ("broker", "broker"), CHANNEL_SERVER: ("hub", "channel server")}
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server. It ends with `stop`, or when this process ends for any reason."""

    name: str
    port: int
    process: Process

    def stop(self) -> None:
        """Terminate the process; kill it after 10 s."""
        self.process.terminate()
        end_all([self.process], STOP_S)
        self.process.stdout.close()


def start(
    module: str, *, host: str, port: int, options: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> ServerProcess:
    """Start `module` (BROKER or CHANNEL_SERVER) and wait until it listens. Raises `ServerError`.

    Port 0 takes any free one.
    """
    process = Process(
        module, "--host", host, "--port", port, *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )  # fmt: skip
    name, title = _NAMES[module]
    ready = process.stdout.readline()
    if not ready:
        raise _no_start(name, title, f"{host}:{port}", process)
    Relay(process.stderr, {"process": name, "pid": process.pid})
    return ServerProcess(name, json.loads(ready)["port"], process)


def _no_start(name: str, title: str, address: str, process: Process) -> ServerError:
    with process.stdout, process.stderr:
        *_, last = process.stderr.read().decode(errors="replace").strip().split("\n")
    last = last or f"exit code {process.exit_code()}"
    process.discard()
    reason = last.removeprefix(f"{name}: ").partition(";")[0]
    what = f"the embedded {title} did not start: {reason}"
    return ServerError(what, address=address, advice="choose another address or port, 0 for any free one")
