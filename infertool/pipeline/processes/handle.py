"""A worker process as its consumer sees it."""

from __future__ import annotations

import time
from collections.abc import Callable

from infertool.errors import ModelLoadError
from infertool.pipeline.processes import wire
from infertool.pipeline.processes.spawn import Spawned

# How often a wait for a model that loads looks whether it is still wanted, in seconds.
_LOOK_S = 0.1
_STDERR = 2


class GoneError(Exception):
    """The process has ended, and all it had said was read."""


class Handle(Spawned):
    """Starts a worker and talks to it. Used by one thread at a time; `kill` by any.

    The worker's standard output is our standard error: nothing a model prints gets among the data.
    """

    def __init__(self, order: wire.Order) -> None:
        super().__init__("infertool.pipeline.processes.child", stdout=_STDERR)
        self._spec = order.model.spec
        self._send(wire.encode(order))

    def wait_ready(self, is_wanted: Callable[[], bool]) -> str | None:
        """Return the model's name once it is ready, or None when `is_wanted` says no. Raises `ModelLoadError`."""
        while is_wanted():
            try:
                answers = self.answers(_LOOK_S)
            except GoneError:
                raise ModelLoadError(
                    f"model {self._spec} cannot be loaded: the worker process {self.ending()}",
                    spec=self._spec,
                    advice="try it in a Python shell",
                ) from None
            for answer in answers:
                if isinstance(answer, wire.Ready):
                    return answer.name
                if isinstance(answer, wire.Unfit):
                    raise _unfit(self._spec, answer)
        return None

    def ask(self, request: wire.Request) -> None:
        """Send a request; whether it arrives is told by the answers."""
        self._send(wire.encode(request))

    def answers(self, timeout_s: float | None = None) -> list[wire.Answer]:
        """Wait for answers and return all that are there; none after `timeout_s`. Raises `GoneError`."""
        found: list[wire.Answer] = []
        if not self.wait(timeout_s):
            return found
        try:
            while self.connection.poll(0):
                found.append(wire.decode_answer(self.connection.recv_bytes()))
        except (EOFError, OSError):
            pass
        if not found:
            raise GoneError
        return found

    def closing_error(self, deadline: float) -> str:
        """Wait until it has closed its model, or until `deadline` (monotonic); return what that raised."""
        try:
            while (left_s := deadline - time.monotonic()) > 0:
                for answer in self.answers(left_s):
                    if isinstance(answer, wire.Closed):
                        return answer.error
        except GoneError:
            pass
        return ""

    def _send(self, message: bytes) -> None:
        try:
            self.connection.send_bytes(message)
        except OSError:
            return  # it is gone, which reading will tell


def _unfit(spec: str, answer: wire.Unfit) -> ModelLoadError:
    error = ModelLoadError(answer.what, spec=spec, advice=answer.advice)
    error.add_note(answer.trace)
    return error
