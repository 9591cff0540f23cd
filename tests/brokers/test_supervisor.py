"""A supervisor of connections that are none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from infertool.brokers.supervisor import Supervisor
from infertool.errors import InfertoolError, ReceiptTimeoutError, SettingsError
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.net.timing import FullJitter

_S = 60.0


@dataclass
class Connection:
    epoch: int
    on_end: Callable[[Connection], None]
    reason: str = ""
    fault: Exception | None = None

    def open(self) -> None:
        if self.fault:
            raise self.fault

    def end(self, reason: str) -> None:
        if not self.reason:
            self.reason = reason
            self.on_end(self)

    def close(self, timeout_s: float) -> None:
        self.end("closed")

    def join(self) -> None: ...


@dataclass
class Host:
    """Makes connections; those after the first fail to open, each with the next of `faults`."""

    address: str = "nowhere"
    faults: list[Exception] = field(default_factory=list)
    made: list[Connection] = field(default_factory=list)

    def connection(self, epoch: int, on_end: Callable[[Connection], None]) -> Connection:
        fault = self.faults.pop(0) if self.made and self.faults else None
        self.made.append(Connection(epoch, on_end, fault=fault))
        return self.made[-1]


@dataclass
class Slow:
    """A subscription that the first connection does not answer in time."""

    attached: threading.Event = field(default_factory=threading.Event)

    def attach(self, connection: Connection) -> None:
        if connection.epoch == 1:
            raise ReceiptTimeoutError("no answer in time", address="nowhere")
        self.attached.set()

    def lost(self) -> None: ...

    def close(self) -> None: ...


def test_a_subscription_that_is_not_answered_in_time_is_made_on_another_connection() -> None:
    supervisor = Supervisor[Connection]([Host()], FullJitter(0.001, 0.01), name="tests", on_connection=None)
    supervisor.connect()
    slow = Slow()
    supervisor.add(slow)
    assert slow.attached.wait(_S)
    supervisor.close(_S)


@dataclass
class Failing:
    """A subscription that fails on connections after the first, each time with the next of `faults`."""

    faults: list[Exception]
    lost_fault: Exception | None = None
    attached: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def attach(self, connection: Connection) -> None:
        if connection.epoch > 1 and self.faults:
            raise self.faults.pop(0)
        self.attached.release()

    def lost(self) -> None:
        if self.lost_fault:
            raise self.lost_fault

    def close(self) -> None: ...


def _supervisor(host: Host, told: list[str]) -> Supervisor[Connection]:
    def note(event: ConnectionEvent) -> None:
        if event.state is ConnectionState.LOST:
            told.append(event.reason)

    return Supervisor[Connection]([host], FullJitter(0.001, 0.01), name="tests", on_connection=note)


# An error that can be foreseen and is no server's; one of ours that nobody foresaw; one of the system's.
FAULTS = [SettingsError("the file of the CA is gone"), KeyError("x"), RuntimeError("can't start new thread")]
TOLD = ["the file of the CA is gone", "KeyError: 'x'", "RuntimeError: can't start new thread"]


def test_a_subscription_that_fails_for_whatever_reason_is_made_on_another_connection() -> None:
    host, told = Host(), list[str]()
    supervisor = _supervisor(host, told)
    supervisor.connect()
    failing = Failing(list(FAULTS))
    supervisor.add(failing)
    assert failing.attached.acquire(timeout=_S)
    host.made[0].end("cut")
    assert failing.attached.acquire(timeout=_S)
    assert told == ["cut", *TOLD]
    assert [connection.reason for connection in host.made] == ["cut", *map(str, FAULTS), ""]
    supervisor.close(_S)


def test_a_connection_that_cannot_be_opened_for_whatever_reason_is_tried_again() -> None:
    host, told = Host(faults=list(FAULTS)), list[str]()
    supervisor = _supervisor(host, told)
    supervisor.connect()
    subscription = Failing([])
    supervisor.add(subscription)
    assert subscription.attached.acquire(timeout=_S)
    host.made[0].end("cut")
    assert subscription.attached.acquire(timeout=_S)
    assert told == ["cut", *TOLD]
    supervisor.close(_S)


def test_a_subscription_that_fails_when_the_connection_is_lost_keeps_none_from_the_next_one() -> None:
    host = Host()
    supervisor = _supervisor(host, [])
    supervisor.connect()
    failing, other = Failing([], lost_fault=ValueError("lost")), Failing([])
    for subscription in (failing, other):
        supervisor.add(subscription)
        assert subscription.attached.acquire(timeout=_S)
    host.made[0].end("cut")
    assert failing.attached.acquire(timeout=_S)
    assert other.attached.acquire(timeout=_S)
    supervisor.close(_S)


@pytest.mark.parametrize("fault", FAULTS[:2], ids=["foreseen", "unforeseen"])
def test_a_subscription_that_cannot_be_made_at_first_is_not_made_later(fault: Exception) -> None:
    host = Host()
    supervisor = _supervisor(host, [])
    supervisor.connect()

    class Never(Failing):
        def attach(self, connection: Connection) -> None:
            self.attached.release()
            raise fault

    never, other = Never([]), Failing([])
    with pytest.raises((InfertoolError, KeyError)):
        supervisor.add(never)
    assert never.attached.acquire(timeout=_S)
    supervisor.add(other)
    assert other.attached.acquire(timeout=_S)
    host.made[0].end("cut")
    assert other.attached.acquire(timeout=_S)
    assert not never.attached.acquire(blocking=False)
    supervisor.close(_S)
