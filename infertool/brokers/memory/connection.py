"""One connection to the in-process broker: what is asked goes through one thread, in order, and answers come from it.

The thread stands for the wire and the reader of a real adapter, so that callbacks, lost confirmations and timeouts
are as they are there.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from dataclasses import dataclass
from typing import Final

from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.queues import NoQueue, RefusedByBroker
from infertool.brokers.memory.server import Address, Session
from infertool.brokers.port import OnSent
from infertool.errors import (
    ConnectionLostError,
    ReceiptTimeoutError,
    RefusedError,
    UnreachableError,
    UnroutableError,
)
from infertool.message import Outgoing
from infertool.secret import Secret

# Operations that may be unconfirmed at a time: further sends wait.
_MOST_OPEN: Final = 500
_IDLE_S: Final = 60.0


@dataclass(slots=True, eq=False)
class _Request:
    operation: Operation
    run: Callable[[], None]
    on_answer: OnSent
    deadline: float


Login = tuple[str, Secret]


@dataclass(frozen=True, slots=True)
class Host:
    """See `infertool.brokers.supervisor.Host`."""

    place: Address
    login: Login

    @property
    def address(self) -> str:
        """The address for people."""
        return self.place.url

    def connection(self, epoch: int, on_end: Callable[[Connection], None]) -> Connection:
        """Return a connection that is not yet open."""
        return Connection(self.place, self.login, epoch, on_end)


class Connection:
    """It is made once and ends once, with a reason. `on_end` is called in its thread, after the last answer."""

    def __init__(self, address: Address, login: Login, epoch: int, on_end: Callable[[Connection], None]) -> None:
        self.address = address.url
        self.epoch = epoch
        self.reason = ""
        self.session = Session(self, address)
        self.server = address.server
        self._address = address
        self._login = login
        self._on_end = on_end
        self._changed = threading.Condition()
        self._requests: deque[_Request] = deque()
        self._open: dict[_Request, None] = {}
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"infertool-memory-{epoch}", daemon=True)

    def open(self) -> None:
        """Connect and log in. Raises `UnreachableError`, `RefusedError`."""
        fault = self._address.faults.next(Operation.CONNECT)
        if not self.server.running or (fault and fault.effect is not Effect.REFUSE):
            raise UnreachableError(
                f"nothing listens at {self.address}", address=self.address, advice="start the broker"
            )
        refusal = fault.reason if fault else ""
        user, password = self._login
        if self.server.login not in {None, (user, password.reveal())}:
            refusal = f"the user name {user!r} or the password is wrong"
        if refusal:
            raise RefusedError(
                f"{self.address} refused the login: {refusal}",
                address=self.address,
                reason=refusal,
                advice="check broker.user and broker.password",
            )
        self._address.add(self)
        self._thread.start()

    def ask(self, operation: Operation, run: Callable[[], None], on_answer: OnSent, timeout_s: float) -> None:
        """Have the broker `run` an operation, and call `on_answer` once. Raises `ConnectionLostError`."""
        with self._changed:
            if self.reason:
                raise self._lost()
            request = _Request(operation, run, on_answer, time.monotonic() + timeout_s)
            self._requests.append(request)
            self._open[request] = None
            if self._address.faults.stalled:
                self._address.faults.holding.set()
            self._changed.notify_all()

    def call(self, operation: Operation, run: Callable[[], None], timeout_s: float) -> None:
        """Have the broker `run` an operation, and wait for it. Raises `RefusedError`, `ConnectionLostError`."""
        answer = self.begin(operation, run, timeout_s)
        self.wait(answer, timeout_s)

    def begin(self, operation: Operation, run: Callable[[], None], timeout_s: float) -> Future[None]:
        """Have the broker `run` an operation; `wait` waits for the answer. Raises `ConnectionLostError`."""
        answer: Future[None] = Future()

        def on_answer(error: Exception | None) -> None:
            if error:
                answer.set_exception(error)
            else:
                answer.set_result(None)

        self.ask(operation, run, on_answer, timeout_s)
        return answer

    def wait(self, answer: Future[None], timeout_s: float) -> None:
        """Wait for an answer. Raises `RefusedError`, `ConnectionLostError`."""
        try:
            # The thread answers in time; one that is not scheduled gets some more.
            answer.result(timeout_s + 1)
        except LateError:
            raise self._late() from None

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """Wait until another send may be open. Returns at once in the thread that makes the room."""
        if self.is_current():
            return True
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.reason) or len(self._open) < _MOST_OPEN, timeout_s)

    def check(self, outgoing: Outgoing) -> None:
        """Raise `RefusedByBroker` if the address refuses messages to that queue."""
        if refusal := self._address.faults.refusal(outgoing.destination):
            raise RefusedByBroker(refusal)

    def is_current(self) -> bool:
        """Return True in the connection's own thread, which gives the answers."""
        return threading.current_thread() is self._thread

    def end(self, reason: str) -> None:
        """End the connection. The first reason counts."""
        with self._changed:
            if self.reason:
                return
            self.reason = reason
            self._changed.notify_all()
        self._address.discard(self)
        self.server.end(self.session)

    def wake(self) -> None:
        """Have the thread look again whether the broker is stalled."""
        with self._changed:
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Have everything done that was asked, for at most `timeout_s`, and end."""
        with self._changed:
            self._changed.wait_for(lambda: self.reason or not self._requests, timeout_s)
        self.end("closed")
        self.join()

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread.ident is not None and not self.is_current():
            self._has_ended.wait()
            self._thread.join()

    def _run(self) -> None:
        while not self.reason:
            request = self._next()
            if request is not None:
                self._execute(request)
            self._answer_late()
        for request in list(self._open):
            self._answer(request, self._lost())
        self._on_end(self)
        self._has_ended.set()

    def _next(self) -> _Request | None:
        """Return what is to be done; None when the connection ended, or an answer is late."""
        with self._changed:
            if not self._can_go_on():
                first = min((request.deadline for request in self._open), default=time.monotonic() + _IDLE_S)
                self._changed.wait(max(0.0, first - time.monotonic()))
            return self._requests.popleft() if self._can_go_on() else None

    def _can_go_on(self) -> bool:
        return bool(self._requests) and not self.reason and not self._address.faults.stalled

    def _execute(self, request: _Request) -> None:
        fault = self._address.faults.next(request.operation)
        effect = fault.effect if fault else None
        reason = fault.reason if fault else ""
        if effect is Effect.CUT_BEFORE:
            self.end(reason)
            return
        error = self._refused(reason) if effect is Effect.REFUSE else self._done(request)
        if effect is Effect.CUT_AFTER:
            self.end(reason)
        # An answer that the end overtakes is lost with the connection.
        if not self.reason and effect is not Effect.SILENCE:
            self._answer(request, error)
        with self._changed:
            self._changed.notify_all()

    def _done(self, request: _Request) -> RefusedError | None:
        try:
            request.run()
        except RefusedByBroker as refusal:
            return self._refused(str(refusal), UnroutableError if isinstance(refusal, NoQueue) else RefusedError)
        return None

    def _answer_late(self) -> None:
        now = time.monotonic()
        with self._changed:
            busy = self._can_go_on()
            late = [] if busy else [request for request in self._open if request.deadline <= now]
        for request in late:
            self._answer(request, self._late())

    def _answer(self, request: _Request, error: Exception | None) -> None:
        with self._changed:
            if request not in self._open:
                return
            del self._open[request]
            self._changed.notify_all()
        request.on_answer(error)

    def _refused(self, reason: str, kind: type[RefusedError] = RefusedError) -> RefusedError:
        return kind(f"{self.address} refused: {reason}", address=self.address, reason=reason)

    def _lost(self) -> ConnectionLostError:
        return ConnectionLostError(f"the connection to {self.address} was lost: {self.reason}", address=self.address)

    def _late(self) -> ReceiptTimeoutError:
        return ReceiptTimeoutError(f"{self.address} sent no receipt in time", address=self.address)
