"""The circuit breaker of a model server: while the server is down, events wait, and one at a time probes it.

The circuit is closed: requests pass. N consecutive failures open it, and so does an answer with Retry-After. Open: no
request passes; events wait, and their attempts are not counted. After the wait it is half-open: one request passes as a
probe; success closes the circuit, failure opens it again. A failed batch does not change the state, since one event may
have caused it: the batch is split, and its events decide.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from infertool.errors import InferenceError, ModelUnavailableError
from infertool.models.port import OnCircuit

T = TypeVar("T")

# Wait of an event while a probe runs, or after the first failures of a server. Seconds.
SHORT_HOLD_S = 0.5
# Random addition to the wait, so that the probe is not always the same event. Seconds.
SPREAD_S = 0.25


class State(StrEnum):
    """The states of a circuit."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The circuit breaker of one server. Thread-safe."""

    def __init__(self, address: str, *, failures: int, wait_s: float, on_circuit: OnCircuit) -> None:
        self._address = address
        self._most_failures = failures
        self._wait_s = wait_s
        self._on_circuit = on_circuit
        self._lock = threading.Lock()
        self._state = State.CLOSED
        self._failures = 0
        self._open_until = 0.0
        self._reason = ""
        on_circuit(address, State.CLOSED)

    def call(self, request: Callable[[], T], *, events: int = 1) -> T:
        """Call `request`, which covers `events` events, if the circuit lets it pass.

        Raises the request's error, or `ModelUnavailableError` with the event's wait: if the circuit is open, if the
        server is unavailable, or if the request fails after others have opened the circuit.
        """
        probe = self._enter()
        try:
            answer = request()
        except ModelUnavailableError as error:
            _, hold_s = self._failed(str(error), probe=probe, pause_s=error.retry_after_s)
            raise ModelUnavailableError(str(error), retry_after_s=hold_s) from None
        except InferenceError as error:
            if not error.retryable:
                self._succeeded(probe=probe)  # the server answered
                raise
            if events > 1:
                self._undecided(probe=probe)
                raise
            known, hold_s = self._failed(str(error), probe=probe)
            if known:
                raise ModelUnavailableError(str(error), retry_after_s=hold_s) from None
            raise
        except BaseException as error:
            self._failed(type(error).__name__, probe=probe)
            raise
        self._succeeded(probe=probe)
        return answer

    def _enter(self) -> bool:
        """Return True if the request is the probe. Raises `ModelUnavailableError` if it must not pass."""
        with self._lock:
            if self._state is State.CLOSED:
                return False
            if self._state is State.OPEN and time.monotonic() >= self._open_until:
                self._become(State.HALF_OPEN)
                return True
            raise ModelUnavailableError(self._reason, retry_after_s=self._hold_s())

    def _succeeded(self, *, probe: bool) -> None:
        with self._lock:
            if probe:
                self._become(State.CLOSED)
            if self._state is State.CLOSED:  # a request from before it opened proves nothing
                self._failures = 0

    def _failed(self, reason: str, *, probe: bool, pause_s: float = 0.0) -> tuple[bool, float]:
        """Count a failure. Return whether the server was known to be down, and the event's wait in seconds."""
        with self._lock:
            known = self._state is not State.CLOSED and not probe
            if not known:
                self._failures += 1
                if probe or pause_s or self._failures >= self._most_failures:
                    self._open(reason, pause_s or self._wait_s)
            return known, self._hold_s()

    def _undecided(self, *, probe: bool) -> None:
        if probe:
            with self._lock:
                self._state = State.OPEN  # its wait is over: the next request is the probe

    def _open(self, reason: str, wait_s: float) -> None:
        self._reason = reason
        self._open_until = time.monotonic() + wait_s
        self._become(State.OPEN, reason, wait_s)

    def _hold_s(self) -> float:
        left_s = self._open_until - time.monotonic() if self._state is State.OPEN else SHORT_HOLD_S
        return max(left_s, 0.0) + random.uniform(0, SPREAD_S)  # noqa: S311  (no secret)

    def _become(self, state: State, reason: str = "", retry_in_s: float = 0.0) -> None:
        self._state = state
        self._on_circuit(self._address, state, reason, retry_in_s)
