"""The circuit breaker: while a model server is down its events wait, and one at a time looks whether it is back.

Closed, requests pass. So many failures in a row open it, and so does a server that says for how long it will be away
(Retry-After). Open, nothing passes: events are held, their tries are not counted. When its time is over it is
half-open: one request passes as a probe; a good answer closes it, a bad one opens it again.

A batch that fails decides nothing, since one event may have spoilt it: the batch is split, and its events decide.
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

# While a probe is under way, or a server is unavailable for the first times: when to try again, in seconds.
SHORT_HOLD_S = 0.5
# Held events come back spread over this many seconds, so that it is not always the same one that is the probe.
SPREAD_S = 0.25


class State(StrEnum):
    """The states of a circuit."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The circuit of one server, for requests from many threads."""

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
        """Make the request, which is for so many `events`, if the circuit lets it pass.

        Raises what it raises, or `ModelUnavailableError` with the time to hold its event: when the circuit is open,
        when the server is unavailable, and when the request fails while others have opened the circuit.
        """
        probe = self._enter()
        try:
            answer = request()
        except ModelUnavailableError as error:
            _, hold_s = self._failed(str(error), probe=probe, pause_s=error.retry_after_s)
            raise ModelUnavailableError(str(error), retry_after_s=hold_s) from None
        except InferenceError as error:
            if not error.retryable:
                self._succeeded(probe=probe)  # it answered
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
        """Return whether the request is the probe. Raises `ModelUnavailableError` when it may not pass."""
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
            if self._state is State.CLOSED:  # an answer from before it opened says nothing
                self._failures = 0

    def _failed(self, reason: str, *, probe: bool, pause_s: float = 0.0) -> tuple[bool, float]:
        """Count a failure; return whether the server was known to be at fault, and for how long its event must wait."""
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
                self._state = State.OPEN  # its time is over: the next request is the probe

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
