"""A worker process as its consumer sees it."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from infertool.consumer.processes import wire
from infertool.errors import ModelLoadError
from infertool.telemetry import json_logs
from infertool.telemetry.json_logs import Relay
from infertool.workers.process import ConnectedProcess

# How often a wait for a model that loads looks whether it is still wanted, in seconds.
_LOOK_S = 0.1
# A process that has closed its connection ends by itself within this time, or is killed. Seconds.
_LAST_BREATH_S = 5.0
_STDERR = 2


class GoneError(Exception):
    """The process has ended, and all it had said was read."""


class Handle(ConnectedProcess):
    """Starts a worker and talks to it. Used by one thread at a time; `kill` and `take_back` by any.

    The worker's standard output is our standard error: nothing a model prints gets among the data. With JSON logs both
    of its streams come through a pipe: libraries and commands of a model write there what is no object.
    """

    def __init__(self, config: wire.WorkerConfig) -> None:
        # Both ends of the permits are ours: what the worker has not read from its end, we read back.
        self._permits, self._unread_permits = socket.socketpair()
        self._relay: Relay | None = None
        stdout, stderr = (subprocess.PIPE, subprocess.STDOUT) if json_logs.is_on() else (_STDERR, None)
        super().__init__(
            "infertool.consumer.processes.child",
            self._unread_permits.fileno(), fds=[self._unread_permits.fileno()], stdout=stdout, stderr=stderr,
        )  # fmt: skip
        if json_logs.is_on():
            self._relay = Relay(self.stdout, {"process": "worker", "pid": self.pid})
        self._incoming = wire.Incoming(self.socket)
        self._spec = config.model.spec
        self._next_number = 1
        self._closed: wire.Closed | None = None
        self._send(msgspec.structs.replace(config, json_logs=json_logs.is_on()))

    def wait_ready(self, is_wanted: Callable[[], bool]) -> str | None:
        """Return the model's name once it is ready, or None when `is_wanted` says no. Raises `ModelLoadError`."""
        while is_wanted():
            try:
                answers = self.answers(_LOOK_S)
            except GoneError:
                self.kill()
                raise ModelLoadError(
                    f"model {self._spec} cannot be loaded: the worker process {self.ending()}",
                    spec=self._spec,
                    advice="try it in a Python shell",
                ) from None
            for answer in answers:
                if isinstance(answer, wire.Ready):
                    self._incoming.garbled = False
                    return answer.name
                if isinstance(answer, wire.StartFailed):
                    raise _unfit(self._spec, answer)
        return None

    @property
    def garbled(self) -> bool:
        """Whether something else than answers came since it was ready."""
        return self._incoming.garbled

    def number(self, count: int) -> range:
        """Return the numbers of the next `count` groups."""
        numbers = range(self._next_number, self._next_number + count)
        self._next_number += count
        return numbers

    def ask(self, numbers: range, groups: Sequence[Sequence[bytes]]) -> None:
        """Send groups, and the permits to begin them; whether they arrive is told by the answers."""
        self.permit(numbers)  # first: the worker reads a request when it has a permit for it
        self._send(wire.Request(numbers.start, [list(group) for group in groups]))

    def permit(self, numbers: Sequence[int]) -> None:
        """Send permits to begin these groups."""
        try:
            self._permits.sendall(struct.pack(f"!{len(numbers)}Q", *numbers))
        except OSError:
            return  # it is gone, which reading will tell

    def take_back(self) -> list[int]:
        """Return the numbers of the groups that have not begun, and never will."""
        permits = b""
        try:
            while more := self._unread_permits.recv(65_536, socket.MSG_DONTWAIT):
                permits += more
        except BlockingIOError:
            pass
        return [number for (number,) in struct.iter_unpack("!Q", permits)]

    def leave(self) -> None:
        """Ask it to close its model and end."""
        self._permits.shutdown(socket.SHUT_WR)

    def answers(self, timeout_s: float | None = None) -> list[wire.Answer]:
        """Wait for news and return the answers that are there; none after `timeout_s`, or when one is incomplete.

        Raises `GoneError`.
        """
        if not self.wait(timeout_s):
            return []
        has_ended = self.has_ended()  # before the reading: what it said last is there by now
        messages, is_open = self._incoming.ready()
        if not messages and not is_open:
            # Not before it had the time to end by itself: its exit code says more.
            self.wait_end(_LAST_BREATH_S)
            self.kill()
            raise GoneError
        if not messages and has_ended:
            raise GoneError
        answers: list[wire.Answer] = []
        for message in messages:
            try:
                answers.append(wire.decode_answer(message))
            except msgspec.MsgspecError:
                self._incoming.garbled = True
        for answer in answers:
            if isinstance(answer, wire.Closed):
                self._closed = answer
        return [answer for answer in answers if not isinstance(answer, wire.Closed)]

    def closing_error(self, deadline: float) -> str:
        """Wait until it has closed its model, or until `deadline` (monotonic); return what that raised."""
        with suppress(GoneError):
            while self._closed is None and (left_s := deadline - time.monotonic()) > 0:
                self.answers(left_s)
        return self._closed.error if self._closed else ""

    def discard(self) -> None:
        """End it at once and release what it holds."""
        super().discard()
        if self._relay:
            self._relay.join()
        for each in (self._permits, self._unread_permits):
            each.close()

    def _send(self, message: msgspec.Struct) -> None:
        try:
            wire.send(self.socket, message)
        except OSError:
            return  # it is gone, which reading will tell


def _unfit(spec: str, answer: wire.StartFailed) -> ModelLoadError:
    error = ModelLoadError(answer.what, spec=spec, advice=answer.advice)
    error.add_note(answer.trace)
    return error
