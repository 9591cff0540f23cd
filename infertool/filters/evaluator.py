"""Evaluates slow CEL expressions in a process that the kernel ends at a limit of time or memory.

Runs as `python -m infertool.filters.evaluator CONNECTION SECONDS MEMORY_BYTES`; CONNECTION is an inherited descriptor.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import threading
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any, Final

from infertool.errors import InfertoolError
from infertool.workers.process import ConnectedProcess

# Limit of processor time: a busy machine does not change the outcome. Seconds.
LIMIT_S: Final = 2.0
_MEMORY_BYTES: Final = 1 << 30
_FAULTS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


class TooLongError(Exception):
    """An evaluation exceeded the limit of time or memory. The message names the limits."""


class Evaluator:
    """Evaluates in a separate process, which starts at the first use. Thread-safe."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._process: ConnectedProcess | None = None
        self._connection: Connection | None = None

    def execute(self, expression: str, names: dict[str, Any]) -> object:
        """Return the result if it is a bool, else the name of its type.

        Raises `TooLongError`, `InfertoolError`, and `RuntimeError` if the expression cannot be evaluated on `names`.
        """
        with self._lock:
            connection = self._connection or self._start()
            try:
                connection.send((expression, names))
                result, fault = connection.recv()
            except (OSError, EOFError):
                self.end()
                raise TooLongError(f"it takes more than {self._limit_s:g} s, or too much memory") from None
            except BaseException:  # an interrupt: the pending answer would be taken for the next one's
                self.end()
                raise
        if fault is not None:
            raise RuntimeError(fault)
        return result

    def end(self) -> None:
        """End the process, if it runs."""
        if self._connection is not None and self._process is not None:
            self._connection.close()
            self._process.discard()
        self._connection = self._process = None

    def _start(self) -> Connection:
        process = ConnectedProcess(
            "infertool.filters.evaluator", self._limit_s, _MEMORY_BYTES,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        connection = Connection(process.socket.detach())
        self._process, self._connection = process, connection
        try:
            connection.recv()
        except EOFError:
            self.end()
            raise InfertoolError("the process that evaluates expressions cannot be started") from None
        except BaseException:  # an interrupt
            self.end()
            raise
        return connection


def serve(connection: Connection, limit_s: float) -> None:
    """Evaluate requests until the connection closes."""
    import cel  # noqa: PLC0415 - only this process needs it here

    compiled = lru_cache(64)(cel.compile)
    connection.send("ready")
    while True:
        try:
            expression, names = connection.recv()
        except EOFError:
            return
        program = compiled(expression)
        # The timer's signal ends the process: no Python code can run during an evaluation.
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        answer = _answer(program, names)
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send(answer)


def _answer(program: Any, names: dict[str, Any]) -> tuple[object, str | None]:
    try:
        result = program.execute(names)
    except _FAULTS as fault:
        return None, str(fault)
    return (result if isinstance(result, bool) else type(result).__name__), None


def main(fd: int, limit_s: float, memory_bytes: int) -> None:
    """Set the memory limit, and serve."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(Connection(fd), limit_s)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
