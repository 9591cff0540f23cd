"""A gateway as a process beside embedded servers: `dev` and `demo` start one where its packages are installed."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import orjson

from infertool.app import extra
from infertool.cli.common import console
from infertool.errors import InfertoolError, ServerError
from infertool.net.address import host_and_port
from infertool.workers.process import Process, end_all

PORT: Final = 8080
CURL: Final = "--json '{\"features\": [1, 2, 3]}'"
_STOP_S: Final = 20.0
_PREFIX: Final = "infertool-dev-gateway-"
# A folder that changed within this time may be one in which a gateway is about to start. Seconds.
_LEFT_AFTER_S: Final = 3600.0


class GatewayProcess:
    """A gateway that starts, then runs; it ends with `stop`, or when this process ends.

    `port` None means 8080, or a free one where that is taken. What it holds is in a folder that ends with it.
    """

    def __init__(
        self,
        broker_url: str,
        *,
        host: str,
        port: int | None,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._resources = ExitStack()
        _remove_leftovers()
        folder = self._resources.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX))
        self._log = self._resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (the stack closes it)
        self._host = host
        self._takes_any = port is None
        self._arguments = [
            "--broker", broker_url, "--anonymous", "--state-dir", folder, "-o", "json", *options,
        ]  # fmt: skip
        self._env = env
        self.process = self._start((PORT if _is_free(host, PORT) else 0) if port is None else port)

    def _start(self, port: int) -> Process:
        self._address = host_and_port(self._host, port)
        return Process(
            "infertool", "--config", os.devnull, "--quiet", "gateway", "--listen", self._address, *self._arguments,
            stdout=subprocess.PIPE, stderr=self._log, env=self._env,
        )  # fmt: skip

    def wait_ready(self) -> str:
        """Wait until it listens; return its URL. Raises `ServerError`."""
        url = self._ready_url()
        if not url and self._takes_any and not _is_free(self._host, PORT):
            # Another program has taken the port since it was free.
            end_all([self.process], _STOP_S)
            self.process.stdout.close()
            self.process = self._start(0)
            url = self._ready_url()
        if url:
            return url
        raise ServerError(
            f"the gateway did not start: {self.last_words()}", address=self._address,
            advice="choose another port with --gateway-port, or leave it out with --no-gateway",
        )  # fmt: skip

    def _ready_url(self) -> str:
        """Return its URL once it listens; empty if it ends before."""
        for line in self.process.stdout:
            # Something that Python runs at its start may have printed before the gateway took its output over.
            with suppress(orjson.JSONDecodeError):
                if isinstance(ready := orjson.loads(line), dict) and ready.get("event") == "ready":
                    return str(ready["url"])
        return ""

    def check(self) -> None:
        """Raise `InfertoolError` if it has ended."""
        if self.process.has_ended():
            raise InfertoolError(f"the gateway ended by itself: {self.last_words()}")

    def last_words(self) -> str:
        """Return the last line that it logged."""
        self.process.wait_end(_STOP_S)
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().rpartition("\n")[2]
        return said.removeprefix("infertool: ") or "without a word"

    def stop(self) -> None:
        """Terminate it; kill it after 20 s."""
        self.process.terminate()
        end_all([self.process], _STOP_S)
        self.process.stdout.close()
        self._resources.close()


def _remove_leftovers() -> None:
    """Remove the folders of gateways whose parent was killed, as `tempfile` names them.

    A gateway that runs has locked its own.
    """
    from infertool.gateway.store import LOCK_NAME

    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}????????"):
        with suppress(OSError):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            if time.time() - found.st_mtime > _LEFT_AFTER_S:
                with (folder / LOCK_NAME).open("rb") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)


def is_possible(*, quiet: bool) -> bool:
    """Return True if a gateway can be started; say how to install what is missing."""
    missing = extra.missing()
    if missing and not quiet:
        console.err(f"without the HTTP gateway, which needs {', '.join(missing)}: {extra.INSTALL}")
    return not missing


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError:
            return False
    return True
