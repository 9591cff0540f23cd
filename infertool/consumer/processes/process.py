"""A worker process as seen from its consumer: requests, permits and answers."""

from __future__ import annotations

import math
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from infertool.codec import JSON
from infertool.consumer.attempt import Group
from infertool.consumer.processes import wire
from infertool.consumer.processes.devices import NO_DEVICE, Device
from infertool.errors import ModelLoadError
from infertool.telemetry import json_logs
from infertool.telemetry.json_logs import Relay
from infertool.workers.process import ConnectedProcess

# Time between two checks that a model that loads is still wanted. Seconds.
_LOOK_S = 0.1
# A process that has closed its connection and does not end within this time is killed. Seconds.
_END_S = 5.0
_STDERR = 2


class GoneError(Exception):
    """The process has ended, and all its answers were read."""


class WorkerProcess(ConnectedProcess):
    """Starts a worker process and sends it requests. Used by one thread at a time; `kill` and `take_back` by any.

    Its standard output is our standard error, so that nothing a model prints gets among the data. With JSON logs both
    of its streams come through a pipe, which makes records of the lines that are none.
    """

    def __init__(self, config: wire.WorkerConfig, device: Device = NO_DEVICE) -> None:
        # Both ends of the permits' socket stay open here: permits that the worker has not read are read back.
        self._permits, self._unread_permits = socket.socketpair()
        self._relay: Relay | None = None
        stdout, stderr = (subprocess.PIPE, subprocess.STDOUT) if json_logs.is_on() else (_STDERR, None)
        super().__init__(
            "infertool.consumer.processes.child",
            self._unread_permits.fileno(), fds=[self._unread_permits.fileno()], stdout=stdout, stderr=stderr,
            env=device.environment(),
        )  # fmt: skip
        if json_logs.is_on():
            self._relay = Relay(self.stdout, {"process": "worker", "pid": self.pid})
        self.device = device
        self._incoming = wire.Incoming(self.socket)
        self._spec = config.model.spec
        self._next_number = 1
        self._closed: wire.Closed | None = None
        self._send(msgspec.structs.replace(config, json_logs=json_logs.is_on()))

    def wait_ready(self, is_wanted: Callable[[], bool], limit_s: float = math.inf) -> wire.Ready | None:
        """Return what it says once it is ready; None if it is no longer wanted.

        Raises `ModelLoadError`, also if it is not ready within `limit_s`.
        """
        deadline = time.monotonic() + limit_s
        while is_wanted():
            if time.monotonic() > deadline:
                raise ModelLoadError(
                    f"model {self._spec} cannot be loaded: the worker process was not ready within {limit_s:.0f} s",
                    spec=self._spec,
                    advice="see what its loading and warm_up wait for",
                )
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
                    return answer
                if isinstance(answer, wire.StartFailed):
                    raise _load_error(self._spec, answer)
        return None

    @property
    def garbled(self) -> bool:
        """True if bytes that are no answer have come since it was ready."""
        return self._incoming.garbled

    def number(self, count: int) -> range:
        """Return the numbers of the next `count` groups."""
        numbers = range(self._next_number, self._next_number + count)
        self._next_number += count
        return numbers

    def ask(self, numbers: range, groups: Sequence[Group]) -> None:
        """Send groups, and the permits to begin them. Only the answers show that they arrived."""
        self.permit(numbers)  # first: the worker reads a request when it has a permit for it
        bodies = [[event.body for event in group] for group in groups]
        are_json = all(event.codec is JSON for group in groups for event in group)
        codecs = [] if are_json else [[event.codec.name for event in group] for group in groups]
        self._send(wire.Request(numbers.start, bodies, codecs))

    def permit(self, numbers: Sequence[int]) -> None:
        """Send permits to begin these groups."""
        try:
            self._permits.sendall(struct.pack(f"!{len(numbers)}Q", *numbers))
        except OSError:
            return  # it is gone; reading shows that

    def take_back(self) -> list[int]:
        """Read the permits back that the worker has not read; return the numbers of those groups, which never begin."""
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
        """Wait for answers and return them; none after `timeout_s`, or while the only one is incomplete.

        Raises `GoneError`.
        """
        if not self.wait(timeout_s):
            return []
        has_ended = self.has_ended()  # before the reading: its last answer is there by now
        messages, is_open = self._incoming.ready()
        if not messages and not is_open:
            # Its own exit code tells more than our kill.
            self.wait_end(_END_S)
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
        """Wait until it has closed its model, or until `deadline` (monotonic); return the error of closing, or ""."""
        with suppress(GoneError):
            while self._closed is None and (left_s := deadline - time.monotonic()) > 0:
                self.answers(left_s)
        return self._closed.error if self._closed else ""

    def discard(self) -> None:
        """See `Process`."""
        super().discard()
        if self._relay:
            self._relay.join()
        for each in (self._permits, self._unread_permits):
            each.close()

    def _send(self, message: msgspec.Struct) -> None:
        try:
            wire.send(self.socket, message)
        except OSError:
            return  # it is gone; reading shows that


def _load_error(spec: str, answer: wire.StartFailed) -> ModelLoadError:
    error = ModelLoadError(answer.what, spec=spec, advice=answer.advice)
    error.add_note(answer.trace)
    return error
