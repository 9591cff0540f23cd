"""A supervisor of connections that are none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from infertool.brokers.supervisor import Supervisor
from infertool.errors import ReceiptTimeoutError
from infertool.net.timing import FullJitter

_S = 60.0


@dataclass
class Connection:
    epoch: int
    on_end: Callable[[Connection], None]
    reason: str = ""

    def open(self) -> None: ...

    def end(self, reason: str) -> None:
        if not self.reason:
            self.reason = reason
            self.on_end(self)

    def close(self, timeout_s: float) -> None:
        self.end("closed")

    def join(self) -> None: ...


class Host:
    address = "nowhere"

    def connection(self, epoch: int, on_end: Callable[[Connection], None]) -> Connection:
        return Connection(epoch, on_end)


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
